//! Cleaning of identifiers: what two spellings have in common, and why a value is no identifier.

pub mod batch;
mod check_digit;
pub mod clusters;
pub mod collect;
pub mod graph;
pub mod id_reject_reason;
pub mod ids;
pub mod norm_email;
pub mod norm_id;
pub mod norm_phone;
mod parts;
pub mod records;
mod sip;
mod slots;
mod text;

pub use norm_id::{Reject, clean};
