//! `quantile_cuts(value, n)`: where a group's values part into n classes.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef, i256};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::gathered::{COMPARED, Gathered, decimals, state_field};
use super::quantile_score::quantile_cuts as scaled_cuts;
use crate::BadArgument;
use crate::funnel::call::constant;
use crate::lists::{list_of, lists};
use crate::one_group::grouped_alone;

const NAME: &str = "quantile_cuts";

/// NUMERIC(38,6)[]: the n - 1 cuts between `n` classes, in order.
///
/// | argument | type         | meaning                                                     |
/// |----------|--------------|-------------------------------------------------------------|
/// | `value`  | number       | taken as DECIMAL(38,6); NULL is not counted                  |
/// | `n`      | whole number | constant, 2 to 1000: the number of classes                   |
///
/// The cuts are the k/n quantiles by linear interpolation (type 7, as `PERCENTILE_CONT`), rounded down to six digits, which moves no
/// value of six digits over a cut: `score_fixed(value, quantile_cuts)` is `quantile_score(value, n)`. NULL without values. Memory is
/// 16 bytes a value; time is that of a sort.
/// # Errors
/// [`BadArgument`] for a value that is not a number, or an `n` outside 2 to 1000.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct QuantileCuts {
    signature: Signature,
}

impl QuantileCuts {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for QuantileCuts {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for QuantileCuts {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, classes] = types else {
            return Err(BadArgument::err(
                NAME,
                "arguments",
                "two are needed: quantile_cuts(value, n)",
            ));
        };
        if !(value.is_numeric() || value.is_null()) {
            return Err(BadArgument::err(NAME, "value", format!("is {value}; a number is needed")));
        }
        if !classes.is_integer() {
            return Err(BadArgument::err(
                NAME,
                "n",
                format!("is {classes}; a whole number is needed"),
            ));
        }
        Ok(vec![COMPARED, DataType::Int64])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(COMPARED))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![state_field(&args)])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match constant(NAME, "n", &args, 1)? {
            ScalarValue::Int64(Some(n)) if (2..=1000).contains(&n) => {
                let answer = move |groups| cuts_of_groups(groups, n as usize);
                Ok(Box::new(Gathered::new(answer)))
            }
            other => Err(BadArgument::err(NAME, "n", format!("is {other}; 2 to 1000 are allowed"))),
        }
    }
}

fn cuts_of_groups(groups: Vec<Vec<i128>>, classes: usize) -> Result<ArrayRef> {
    let (mut cuts, mut lengths, mut is_there) = (Vec::new(), Vec::new(), Vec::new());
    for values in groups {
        let before = cuts.len();
        is_there.push(!values.is_empty());
        cuts.extend(cuts_of(values, classes));
        lengths.push(cuts.len() - before);
    }
    let all = lists(decimals(cuts)?, lengths)?;
    let without = BooleanArray::from_iter(is_there.iter().map(|is_there| Some(!is_there)));
    Ok(arrow::compute::nullif(&all, &without)?)
}

/// The cuts of values, at least one, rounded down.
fn cuts_of(values: Vec<i128>, classes: usize) -> impl Iterator<Item = i128> {
    let n = i256::from(classes as i64);
    scaled_cuts(values, classes).into_iter().map(move |cut| {
        let (whole, rest) = (cut.wrapping_div(n), cut.wrapping_rem(n));
        let down = if rest < i256::ZERO { i256::ONE } else { i256::ZERO };
        // It lies between two values.
        (whole - down).to_i128().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        AggregateCase::new("quantile_cuts(k, 5)").agrees_however_it_is_run();
    }

    proptest! {
        /// A cut lies between its neighbours, where R's type 7 puts it: at (N - 1) k / n, counted from 0.
        #[test]
        fn cuts_are_quantiles(mut values in proptest::collection::vec(-1000i128..1000, 1..30), classes in 2usize..12) {
            values.sort_unstable();
            for (k, cut) in (1..classes).zip(cuts_of(values.clone(), classes)) {
                let place = (values.len() - 1) as f64 * k as f64 / classes as f64;
                let low = values[place.floor() as usize] as f64;
                let high = values[(place.floor() as usize + 1).min(values.len() - 1)] as f64;
                let expected = low + (high - low) * (place - place.floor());
                prop_assert!((cut as f64 - expected).abs() <= 1.0, "{} {}", cut, expected);
                prop_assert!(cut as f64 <= expected + 1e-6);
            }
        }
    }
}
