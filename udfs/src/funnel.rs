//! How far a customer got, in order, and who came back.
//!
//! The semantics are those of `exact` mode: the best chain of each customer, the same for any order of rows,
//! any partitioning and any number of merges.

mod attempts;
pub(crate) mod call;
mod chain;
pub mod dialect;
pub mod funnel_attempts;
pub mod funnel_path;
pub mod funnels;
pub mod kept;
mod modes;
mod pattern;
mod peers;
pub mod range_retention_count;
pub mod range_retention_sum;
pub mod retention;
pub mod returns;
mod rows;
pub mod sequence;
pub mod sequence_next_node;
pub mod sessionize;
mod spec;
pub(crate) mod state;
pub mod window_funnel;

pub use spec::silent_unit;
