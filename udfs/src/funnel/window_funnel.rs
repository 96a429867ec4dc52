//! `window_funnel(window, 'mode', time, condition, ...)`: how far one customer got through a funnel.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::spec::{Answer, FunnelSpec, coerce};
use super::state::{Touches, state_fields};
use crate::one_group::grouped_alone;

const NAME: &str = "window_funnel";

/// Deepest step reached in order within `window` of a step-1 event.
///
/// | argument    | type                            | meaning                                                  |
/// |-------------|---------------------------------|----------------------------------------------------------|
/// | `dialect`   | TEXT                            | constant, may be left out: `exact`, `clickhouse`, `starrocks`, `doris` or `databend`, whose answer is given |
/// | `window`    | INTERVAL or whole number        | constant; its last instant is included; a bare number is seconds on a timestamp, days on a date, the column's unit on a number |
/// | `mode`      | TEXT or whole number            | constant: `default`, or what ends a chain, with commas between; 1, 2 and 4 and their sums are deduplication, fixed and increase |
/// | `time`      | TIMESTAMP, DATE or whole number | a row with a NULL time is skipped                        |
/// | `condition` | BOOLEAN, one a step             | NULL is false                                            |
///
/// Returns INT: 0 when step 1 never happened; NULL in a dialect in which rows with a NULL are not seen, for a customer all of
/// whose rows are such. What follows is about `exact`. Events at one instant count in step order, one row may
/// satisfy several steps, and a later step 1 may rescue a late finish: the best chain wins. The answer does not depend
/// on the order of rows. Memory is 16 bytes for each row and step it satisfies; time is that of a sort.
/// # Errors
/// [`BadArgument`](crate::BadArgument) for a window that is negative, in months or not constant, an unknown mode,
/// a condition that is not boolean. Named after ClickHouse's and Doris's function; see `docs/window_funnel.md`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WindowFunnel {
    signature: Signature,
    aliases: Vec<String>,
}

impl WindowFunnel {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
            aliases: vec!["windowfunnel".to_owned()],
        }
    }
}

impl Default for WindowFunnel {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for WindowFunnel {
    fn name(&self) -> &str {
        NAME
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(NAME, arg_types)
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn is_nullable(&self) -> bool {
        // In a dialect in which rows are left out.
        true
    }

    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int32(Some(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name))
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let spec = FunnelSpec::from_args(NAME, Answer::Level, &args)?;
        Ok(Box::new(Touches::new(Arc::new(spec))))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    /// However the rows are cut, ordered, merged, filtered or emitted, the answer is the same.
    #[test]
    fn states_merge() {
        AggregateCase::new(
            "window_funnel(INTERVAL '2 seconds', 'default', at, k = 1, k = 2, k = 3)",
        )
        .agrees_however_it_is_run();
        for mode in [
            "'strict_increase'",
            "'strict_deduplication'",
            "'strict_order'",
            "'strict_order,strict_once'",
            "'fixed,allow_reentry'",
            "'strict_once'",
        ] {
            let call = format!("window_funnel(3, {mode}, at, k <= 2, k = 2, k = 3, k >= 3)");
            AggregateCase::new(&call).agrees_however_it_is_run();
        }
        for call in ["window_funnel(3, at, 5, ARRAY[k = 1, k = 2])", "window_funnel(3, at, k = 1)"]
        {
            AggregateCase::new(call).agrees_however_it_is_run();
        }
    }
}
