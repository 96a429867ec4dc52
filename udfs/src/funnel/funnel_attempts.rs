//! `funnel_attempts(window, 'mode', time, condition, ...)`: every attempt of one customer, how far it got, and when.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::spec::{Answer, FunnelSpec, coerce, path_type, time_type};
use super::state::{Touches, state_fields};
use crate::lists::list_of;
use crate::one_group::grouped_alone;

const NAME: &str = "funnel_attempts";

/// All attempts of a customer, one after the other: a list of structs of `level` INT and `times`, the instants of the steps.
///
/// Arguments, modes, ties, NULL rules and errors are those of [`WindowFunnel`](super::window_funnel::WindowFunnel), but for
/// conditions in an array. An attempt begins with the first row of step 1 after the attempt before; it ends with its last
/// step, or when the window after its beginning is over and its best chain, too; what else happens meanwhile belongs to it. The
/// deepest one is [`FunnelPath`](super::funnel_path::FunnelPath)'s. In `strict_once`, rows of one instant are taken in the order
/// of their conditions. Time is that of a sort and rows times steps.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FunnelAttempts {
    signature: Signature,
}

impl FunnelAttempts {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for FunnelAttempts {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for FunnelAttempts {
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
        let attempt = path_type(time_type(&coerce(NAME, arg_types)?));
        Ok(list_of(attempt))
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
        let spec = FunnelSpec::from_args(NAME, Answer::Attempts, &args)?;
        Ok(Box::new(Touches::new(Arc::new(spec))))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        for mode in ["default", "strict_order,strict_once", "strict_increase"] {
            let call =
                format!("funnel_attempts(INTERVAL '1 second', '{mode}', at, k <= 2, k = 2, k = 3)");
            AggregateCase::new(&call).agrees_however_it_is_run();
        }
    }
}
