//! `funnel_path(window, 'mode', time, condition, ...)`: how far one customer got, and when.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::spec::{Answer, FunnelSpec, coerce, path_type, time_type};
use super::state::{Touches, state_fields};
use crate::one_group::grouped_alone;

const NAME: &str = "funnel_path";

/// The winning attempt of a customer: a struct of `level` INT and `times`, the instants of its steps.
///
/// Arguments, modes, ties, NULL rules and errors are those of [`WindowFunnel`](super::window_funnel::WindowFunnel), and
/// `level` is its answer. `times` has one element a step reached, in the type of `time`. Of the chains that reach the
/// deepest step the one that reached it first wins; of those, the one that started last. Memory is 16 bytes for each
/// row and step it satisfies.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FunnelPath {
    signature: Signature,
}

impl FunnelPath {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for FunnelPath {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for FunnelPath {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(NAME, arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(path_type(time_type(&coerce(NAME, arg_types)?)))
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name))
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let spec = FunnelSpec::from_args(NAME, Answer::Path, &args)?;
        Ok(Box::new(Touches::new(Arc::new(spec))))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        AggregateCase::new("funnel_path(INTERVAL '3 seconds', 'default', at, k = 1, k = 2, k = 3)")
            .agrees_however_it_is_run();
    }
}
