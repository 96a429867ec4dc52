//! The one error of this crate that a caller causes.

use datafusion::error::DataFusionError;

/// An argument that a function cannot accept: what was seen, what is allowed.
///
/// Travels as [`DataFusionError::External`]; `find_root` and a downcast recover it after any number of contexts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{function}: {argument}: {problem}")]
pub struct BadArgument {
    /// SQL name of the function.
    pub function: &'static str,
    /// SQL name of the argument.
    pub argument: &'static str,
    /// What was seen and what is allowed, as a sentence without a capital or full stop.
    pub problem: String,
}

impl BadArgument {
    /// The error as the engine carries it.
    pub fn err(
        function: &'static str,
        argument: &'static str,
        problem: impl Into<String>,
    ) -> DataFusionError {
        DataFusionError::External(Box::new(Self { function, argument, problem: problem.into() }))
    }
}
