//! The warehouse, in a folder or a bucket: what is stored where, and how it changes without ever being half changed.
//!
//! ```text
//! <dir>/_clientele/warehouse.json          format version, identity of the warehouse
//! <dir>/_clientele/secret.key              key of the identifier hashes, 0600
//! <dir>/_clientele/users.json              SCRAM verifiers, 0600
//! <dir>/_clientele/generations/<n>.json    the publish log: what changed with generation n
//! <dir>/_clientele/place.json              by which a copy of the folder knows that it is one
//! <dir>/_clientele/leases/<epoch>.json     who does the housekeeping
//! <dir>/_clientele/readers/<id>.json       which generations running statements still read
//! <dir>/_clientele/pending/<id>.json       a group of commits that must be finished or was never begun
//! <dir>/<schema>/<table>/                  one Delta table: _delta_log/*.json and Parquet files
//! ```
//!
//! A reader takes one generation and sees, for every table, the Delta version recorded there. A writer commits to the
//! tables' own logs first and then appends one generation: that append is the only moment at which anything becomes
//! visible. Only this room touches object_store and Delta.

mod bucket;
mod check;
mod cluster;
mod copied;
mod customers;
mod erased;
mod generation;
mod group;
mod highest;
mod lease;
mod local;
mod log;
mod outgoing;
mod reader;
mod readers;
mod residue;
mod root;
mod sums;
pub mod system;
mod table;
mod types;
mod users;
mod vacuum;
mod warehouse;
mod writer;

pub use check::FileCheck;
pub use cluster::{BUCKETS_DEFAULT, Clustering, Known, Mark, ONE_ID, Place};
pub use customers::{Customers, MAP, MOVED};
pub use erased::{Erased, ErasedValues, Erasure, Purged, RECORD};
pub use generation::{
    Change, FunctionArgument, FunctionColumn, FunctionDef, Generation, GraphDef, Holding, Name,
    OVERRIDES, REPORTS, Relation, TableDef, ViewDef,
};
pub use group::{Group, Published, Replaced, RestoreVersion, TableChange};
pub use lease::Lease;
pub use object_store::ObjectStore;
pub use readers::Pin;
pub use residue::{ErasedCheck, Residue};
pub use root::Location;
pub use table::{FileEntry, TableSnapshot};
pub use types::{refuse_hidden_record, stored_schema};
pub use users::{User, Users, Verifier};
pub use vacuum::Vacuumed;
pub use warehouse::{DATA_URL, Publish, Warehouse, checked};
pub(crate) use writer::bounds_of;
pub use writer::{Codec, FileStyle, TableWriter, WrittenFile};
