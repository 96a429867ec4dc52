//! Statements: what is ours, what is PostgreSQL's, and what goes to the engine.
//!
//! Text is cut into statements by its tokens; each is read by our own grammar when it begins like one of ours, by the
//! PostgreSQL parser otherwise, then rewritten where the engine's dialect differs, planned over one pinned generation and
//! run. The wire and the command line both come through here.

mod alter;
mod catalogue;
mod check;
mod compact;
mod copy;
mod create_function;
mod cron;
mod ddl;
mod delete;
mod erase;
mod execute;
mod export;
mod forget;
mod funnels;
mod install;
mod lines;
mod materialized;
mod names;
mod oneid;
mod parameters;
mod past;
mod quality;
mod refresh;
mod restore;
mod rewrite;
mod rfm_blocks;
mod scheduler;
pub(crate) mod statement;
mod upkeep;
mod volatile;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

pub use compact::{Compacted, compact};
pub use copy::{CopySource, CopyStatement, CopyTarget};
pub use erase::{Erase, check_erased, described as describe_vacuum, erase_records};
pub use execute::{describe, execute, full_name};
pub use install::{Installed, install_reports, shipped_reports};
pub use lines::{csv_value, json_member};
pub use parameters::{Described, declared_type, literal_of, typed};
pub use quality::{Checked, Quality, check_quality};
pub use scheduler::keep_schedule;
pub use upkeep::keep_tidy;

pub use statement::{SessionCommand, Statement, parse};

/// Who does the housekeeping.
const UPKEEP_USER: &str = "clientele";

/// A column of a result: its name as PostgreSQL would give it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputColumn {
    /// Name; several columns may share one.
    pub name: String,
    /// Type and metadata.
    pub field: Arc<Field>,
}

/// The answer of a statement that is one batch.
fn answer(batch: RecordBatch, tag: &'static str) -> Outcome {
    let schema = batch.schema();
    let columns = output_columns(&schema);
    let stream = futures::stream::once(async move { Ok(batch) });
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema, stream));
    Outcome::Rows { columns, stream, tag, notices: vec![] }
}

/// What a statement gives back.
pub enum Outcome {
    /// Rows, as they are made.
    Rows {
        /// Columns.
        columns: Vec<OutputColumn>,
        /// Batches.
        stream: SendableRecordBatchStream,
        /// Command tag; the number of rows follows it.
        tag: &'static str,
        /// What the user should know before the rows.
        notices: Vec<String>,
    },
    /// No rows; the whole command tag.
    Done(String),
    /// A notice, and then the tag.
    Noticed {
        /// Command tag.
        tag: String,
        /// What the user should know.
        notice: String,
    },
    /// A command about the session or its transaction, for the one who holds the connection.
    Session(SessionCommand),
    /// The client is to send rows.
    CopyIn(Box<CopyStatement>),
    /// Rows to be sent as COPY data.
    CopyOut {
        /// How to write them.
        copy: Box<CopyStatement>,
        /// Columns.
        columns: Vec<OutputColumn>,
        /// Batches.
        stream: SendableRecordBatchStream,
        /// What the user should know before the rows.
        notices: Vec<String>,
    },
}

/// Columns of a plan's schema under PostgreSQL's names.
pub(crate) fn output_columns(schema: &SchemaRef) -> Vec<OutputColumn> {
    let column = |field: &Arc<Field>| OutputColumn {
        name: names::shown(field.name()).to_owned(),
        field: Arc::clone(field),
    };
    schema.fields().iter().map(column).collect()
}
