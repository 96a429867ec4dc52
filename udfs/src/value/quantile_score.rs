//! `quantile_score(value, n) OVER (...)`: which of n quantile classes a value lies in.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, i256};
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};

use crate::BadArgument;

const NAME: &str = "quantile_score";

/// Score 1 to `n` of each value of the window's partition, by value and not by rank.
///
/// | argument | type            | meaning                                                                     |
/// |----------|-----------------|-----------------------------------------------------------------------------|
/// | `value`  | number          | a float is compared as DECIMAL(38,6); NULL gets NULL and is not counted      |
/// | `n`      | whole number    | constant, 2 to 1000: the number of classes                                  |
///
/// The cuts are the k/n quantiles by linear interpolation (type 7, as `PERCENTILE_CONT`); the score is 1 plus the number
/// of cuts strictly below the value. Equal values therefore always get equal scores, and repeated cuts skip scores.
/// Compared in whole numbers, so no rounding moves a value over a cut. The frame is the whole partition. Cost: a sort.
/// # Errors
/// [`BadArgument`] for a value that is not a number, or an `n` outside 2 to 1000.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct QuantileScore {
    signature: Signature,
}

impl QuantileScore {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for QuantileScore {
    fn default() -> Self {
        Self::new()
    }
}

impl WindowUDFImpl for QuantileScore {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, classes] = arg_types else {
            return Err(BadArgument::err(
                NAME,
                "arguments",
                "two are needed: quantile_score(value, n)",
            ));
        };
        if !classes.is_integer() {
            return Err(BadArgument::err(
                NAME,
                "n",
                format!("is {classes}; a whole number is needed"),
            ));
        }
        Ok(vec![comparable(NAME, "value", value)?, DataType::Int64])
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int32, true)))
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Classes))
    }
}

/// The exact type in which values of `value` are compared.
pub(crate) fn comparable(
    function: &'static str,
    argument: &'static str,
    value: &DataType,
) -> Result<DataType> {
    match value {
        t if t.is_integer() || t.is_null() => Ok(DataType::Decimal128(20, 0)),
        DataType::Decimal128(p, s) => Ok(DataType::Decimal128(*p, *s)),
        t if t.is_numeric() => Ok(DataType::Decimal128(38, 6)),
        other => {
            Err(BadArgument::err(function, argument, format!("is {other}; a number is needed")))
        }
    }
}

#[derive(Debug)]
struct Classes;

impl PartitionEvaluator for Classes {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let classes = arrow::compute::cast(&values[1], &DataType::Int64)?;
        let classes = classes.as_primitive::<arrow::datatypes::Int64Type>();
        let n = if num_rows == 0 { 2 } else { classes.value(0) };
        if !(2..=1000).contains(&n) || classes.iter().any(|c| c != Some(n)) {
            return Err(BadArgument::err(
                NAME,
                "n",
                format!("is {n}; a constant from 2 to 1000 is needed"),
            ));
        }
        let values = values[0].as_primitive::<Decimal128Type>();
        let cuts = quantile_cuts(values.iter().flatten().collect(), n as usize);
        let score = |value: i128| score(value, n as usize, &cuts);
        Ok(Arc::new(values.iter().map(|v| v.map(score)).collect::<Int32Array>()))
    }
}

/// The k/n quantiles for k in 1..n, each multiplied by n, so that they are whole.
pub(super) fn quantile_cuts(mut values: Vec<i128>, n: usize) -> Vec<i256> {
    if values.is_empty() {
        return Vec::new();
    }
    values.sort_unstable();
    let last = values.len() - 1;
    let cut = |k: usize| {
        let (low, part) = (k * last / n, k * last % n);
        let low_value = i256::from_i128(values[low]);
        let step = i256::from_i128(values[(low + 1).min(last)]) - low_value;
        low_value * i256::from(n as i64) + step * i256::from(part as i64)
    };
    (1..n).map(cut).collect()
}

fn score(value: i128, n: usize, cuts: &[i256]) -> i32 {
    let value = i256::from_i128(value) * i256::from(n as i64);
    1 + cuts.partition_point(|cut| *cut < value) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scores(values: &[i128], n: usize) -> Vec<i32> {
        let cuts = quantile_cuts(values.to_vec(), n);
        values.iter().map(|v| score(*v, n, &cuts)).collect()
    }

    /// Repeated cuts skip scores (value.md 3.9: F cuts 1 1 1 2 give scores 1, 4 and 5).
    #[test]
    fn repeated_cuts_skip_scores() {
        let values = [1, 1, 1, 1, 1, 1, 1, 2, 2, 3];
        let scored = scores(&values, 5);
        assert_eq!(scored[0], 1);
        assert!(scored[7..9].iter().all(|s| *s == scored[7]));
        assert_eq!(scored[9], 5);
    }

    #[test]
    fn ten_values_in_five_classes() {
        let values: Vec<i128> = (1..=10).collect();
        assert_eq!(scores(&values, 5), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    }

    #[test]
    fn one_value_scores_one() {
        assert_eq!(scores(&[7], 5), [1]);
        assert!(quantile_cuts(vec![], 5).is_empty());
    }

    proptest! {
        /// The definition with fractions: cut = v[floor(h)] + (h - floor(h)) * step, h = k (N - 1) / n.
        #[test]
        fn agrees_with_the_definition(values in prop::collection::vec(-1000i128..1000, 1..60), n in 2usize..12) {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let last = sorted.len() - 1;
            let slow = |value: i128| -> i32 {
                let below = (1..n).filter(|k| {
                    // value > cut, both sides multiplied by n.
                    let low = k * last / n;
                    let high = (low + 1).min(last);
                    let part = (k * last - low * n) as i128;
                    value * n as i128 > sorted[low] * n as i128 + part * (sorted[high] - sorted[low])
                });
                1 + below.count() as i32
            };
            let expected: Vec<i32> = values.iter().map(|v| slow(*v)).collect();
            prop_assert_eq!(scores(&values, n), expected);
        }
    }
}
