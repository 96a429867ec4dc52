//! `gini(value)` and `top_share(value, share)`: how much of the whole a few have.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::gathered::{COMPARED, Gathered, state_field};
use crate::BadArgument;
use crate::funnel::call::constant;
use crate::one_group::grouped_alone;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// The Gini coefficient.
    Gini,
    /// The share of the first ones.
    TopShare,
}

/// DOUBLE from 0 to 1.
///
/// | function                   | meaning                                                                                                 |
/// |----------------------------|---------------------------------------------------------------------------------------------------------|
/// | `gini(value)`              | 0 when all have as much, (n - 1) / n when one of n has everything                                        |
/// | `top_share(value, share)`  | what the `share` of rows with the largest values have of the sum: `top_share(paid, 0.2)` is Pareto's question. Of a part of a row, that part of its value |
///
/// Values are taken as DECIMAL(38,6); a NULL is not counted. NULL without values, and where their sum is 0. Memory is 16 bytes a value; time is
/// that of a sort.
/// # Errors
/// [`BadArgument`] for a value below 0, of which there is no share, and a `share` outside of 0 to 1.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Concentration {
    asked: Asked,
    signature: Signature,
}

impl Concentration {
    /// The function, ready to be registered.
    pub fn new(asked: Asked) -> Self {
        Self { asked, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Gini => "gini",
            Self::TopShare => "top_share",
        }
    }
}

impl AggregateUDFImpl for Concentration {
    fn name(&self) -> &str {
        self.asked.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |data_type: &DataType| data_type.is_numeric() || data_type.is_null();
        let fits = match self.asked {
            Asked::Gini => types.len() == 1,
            Asked::TopShare => types.len() == 2,
        };
        if !fits || !types.iter().all(is_number) {
            let form = match self.asked {
                Asked::Gini => "a number is needed: gini(value)",
                Asked::TopShare => "two numbers are needed: top_share(value, 0.2)",
            };
            return Err(BadArgument::err(self.asked.name(), "arguments", form));
        }
        Ok([COMPARED, DataType::Float64][..types.len()].to_vec())
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![state_field(&args)])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let share = match self.asked {
            Asked::Gini => None,
            Asked::TopShare => match constant(self.asked.name(), "share", &args, 1)? {
                ScalarValue::Float64(Some(share)) if (0.0..=1.0).contains(&share) => Some(share),
                other => {
                    let problem = format!("is {other}; a share from 0 to 1 is needed");
                    return Err(BadArgument::err(self.asked.name(), "share", problem));
                }
            },
        };
        let name = self.asked.name();
        Ok(Box::new(Gathered::new(move |groups: Vec<Vec<i128>>| {
            let answers = groups.into_iter().map(|values| answer(name, values, share));
            let answers = answers.collect::<Result<Vec<Option<f64>>>>()?;
            Ok(Arc::new(Float64Array::from(answers)) as ArrayRef)
        })))
    }
}

fn answer(name: &'static str, mut values: Vec<i128>, share: Option<f64>) -> Result<Option<f64>> {
    if values.iter().any(|value| *value < 0) {
        let problem = "a value is below 0, of which there is no share: greatest(value, 0) takes it for nothing";
        return Err(BadArgument::err(name, "value", problem));
    }
    values.sort_unstable();
    // In one order, so that no partitioning changes a digit.
    let total: f64 = values.iter().map(|value| *value as f64).sum();
    if total <= 0.0 {
        return Ok(None);
    }
    Ok(Some(match share {
        None => gini(&values, total),
        Some(share) => top_share(&values, total, share),
    }))
}

/// Of sorted values.
fn gini(values: &[i128], total: f64) -> f64 {
    let n = values.len() as f64;
    let ranked: f64 =
        values.iter().enumerate().map(|(at, value)| (at as f64 + 1.0) * *value as f64).sum();
    2.0 * ranked / (n * total) - (n + 1.0) / n
}

/// Of sorted values.
fn top_share(values: &[i128], total: f64, share: f64) -> f64 {
    let mut left = values.len() as f64 * share;
    let mut sum = 0.0;
    for value in values.iter().rev() {
        if left <= 0.0 {
            break;
        }
        sum += left.min(1.0) * *value as f64;
        left -= 1.0;
    }
    sum / total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        AggregateCase::new("gini(k)").agrees_however_it_is_run();
        AggregateCase::new("top_share(k, 0.2)").agrees_however_it_is_run();
    }

    proptest! {
        /// Half of the mean difference between two, over the mean.
        #[test]
        fn gini_is_the_mean_difference(mut values in proptest::collection::vec(0i128..1000, 1..40)) {
            values.sort_unstable();
            let total: f64 = values.iter().map(|v| *v as f64).sum();
            prop_assume!(total > 0.0);
            let n = values.len() as f64;
            let differences: f64 = values.iter().flat_map(|a| values.iter().map(move |b| (a - b).abs() as f64)).sum();
            prop_assert!((gini(&values, total) - differences / (2.0 * n * total)).abs() < 1e-9);
            prop_assert!((top_share(&values, total, 1.0) - 1.0).abs() < 1e-9);
            prop_assert!(top_share(&values, total, 0.2) >= 0.2 - 1e-9);
        }
    }
}
