//! Which records are one person: identity graphs.
//!
//! A graph reads identifiers from a table, cleans them, drops those that too many records share, joins records tier by tier
//! within the graph's limits, and gives every customer a `one_id` that stays. The result is a function of the data, the rules
//! and what was said by hand: no order of rows, files or loads changes it.

mod ask;
mod call;
mod collection;
mod columns;
mod findings;
mod graph;
mod lookup;
mod map;
mod mask;
mod refresh;
mod rules;
mod source;
mod statement;
mod tables;

pub use ask::{preview, preview_schema, why, why_schema};
pub use call::{Call, constant, expand_view, must_answer, replace_call};
pub use graph::{execute, must_exist, relation_of};
pub use lookup::lookup_hash;
pub use statement::{GraphStatement, parse_statement};

/// What a graph statement answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Command tag.
    pub tag: String,
    /// What the user should know.
    pub notice: Option<String>,
}
