//! Which records are one person: identity graphs.
//!
//! A graph reads identifiers (source, record_id, id_type, id_value) from a table, cleans them, drops those that too many
//! records share, and gives every record the `one_id` of its connected component. The result is a function of the data and
//! the rules alone: no order of rows, files or loads changes it.

mod graph;
mod resolve;
mod statement;

pub use graph::{execute, relation_of};
pub use statement::{GraphStatement, parse_statement};

/// What a graph statement answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Command tag.
    pub tag: String,
    /// What the user should know.
    pub notice: Option<String>,
}
