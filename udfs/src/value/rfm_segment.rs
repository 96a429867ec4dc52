//! `rfm_segment(r, f, m, 'set')`: the name of a customer's RFM segment.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

const NAME: &str = "rfm_segment";
const SETS: &str = "eight, eight_zh, r10, putler11";

/// Names a segment from three scores.
///
/// | set        | scores                          | rule                                                       |
/// |------------|---------------------------------|------------------------------------------------------------|
/// | `eight`    | 0 low or 1 high, against a mean | the eight segments, English names                          |
/// | `eight_zh` | 0 low or 1 high, against a mean | the eight segments, Chinese names                          |
/// | `r10`      | 1 to 5                          | the ten names of R's rfm 0.3; the first rule that fits      |
/// | `putler11` | 0 to 5                          | eleven names over R and the mean of F and M; the first wins |
///
/// `other` when no rule fits; NULL when a score is NULL.
/// # Errors
/// [`BadArgument`] for a set of another name.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RfmSegment {
    signature: Signature,
}

impl RfmSegment {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self {
            signature: Signature::exact(
                vec![DataType::Int64, DataType::Int64, DataType::Int64, DataType::Utf8],
                Volatility::Immutable,
            ),
        }
    }
}

impl Default for RfmSegment {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for RfmSegment {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let score = |i: usize| arrays[i].as_primitive::<Int64Type>();
        let (r, f, m, sets) = (score(0), score(1), score(2), arrays[3].as_string::<i32>());
        let mut names = Vec::with_capacity(args.number_rows);
        for row in 0..r.len() {
            let known = r.is_valid(row) && f.is_valid(row) && m.is_valid(row) && sets.is_valid(row);
            names.push(if known {
                Some(segment(r.value(row), f.value(row), m.value(row), sets.value(row))?)
            } else {
                None
            });
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(names))))
    }
}

fn segment(r: i64, f: i64, m: i64, set: &str) -> Result<&'static str> {
    match set {
        "eight" => Ok(eight(r, f, m).0),
        "eight_zh" => Ok(eight(r, f, m).1),
        "r10" => {
            Ok(first(&R10, |(r_in, f_in, m_in)| holds(r_in, r) && holds(f_in, f) && holds(m_in, m)))
        }
        // The mean of F and M is compared doubled, in whole numbers.
        "putler11" => Ok(first(&PUTLER11, |(r_in, fm)| {
            holds(r_in, r) && 2 * fm.0 <= f + m && f + m <= 2 * fm.1
        })),
        other => Err(BadArgument::err(
            NAME,
            "set",
            format!("{other:?} is not a segment set; known are {SETS}"),
        )),
    }
}

/// English and Chinese name by high (1) and low (0) recency, frequency and monetary value.
fn eight(r: i64, f: i64, m: i64) -> (&'static str, &'static str) {
    match (r, f, m) {
        (1, 1, 1) => ("important_value", "重要价值"),
        (1, 0, 1) => ("important_develop", "重要发展"),
        (0, 1, 1) => ("important_keep", "重要保持"),
        (0, 0, 1) => ("important_winback", "重要挽留"),
        (1, 1, 0) => ("general_value", "一般价值"),
        (1, 0, 0) => ("general_develop", "一般发展"),
        (0, 1, 0) => ("general_keep", "一般保持"),
        (0, 0, 0) => ("general_winback", "一般挽留"),
        _ => ("other", "other"),
    }
}

type Range = (i64, i64);

fn holds(range: &Range, score: i64) -> bool {
    (range.0..=range.1).contains(&score)
}

fn first<R>(rules: &[(&'static str, R)], fits: impl Fn(&R) -> bool) -> &'static str {
    rules.iter().find(|(_, rule)| fits(rule)).map_or("other", |(name, _)| *name)
}

/// R, F and M ranges of R's rfm 0.3.0, in its order.
const R10: [(&str, (Range, Range, Range)); 10] = [
    ("Champions", ((5, 5), (5, 5), (5, 5))),
    ("Potential Loyalist", ((3, 5), (3, 5), (2, 5))),
    ("Loyal Customers", ((2, 4), (2, 4), (2, 4))),
    ("Promising", ((3, 4), (1, 3), (3, 5))),
    ("New Customers", ((4, 5), (1, 3), (1, 5))),
    ("Can't Lose Them", ((1, 2), (3, 4), (4, 5))),
    ("At Risk", ((1, 2), (2, 5), (4, 5))),
    ("Need Attention", ((1, 3), (3, 5), (3, 5))),
    ("About To Sleep", ((2, 3), (1, 3), (1, 4))),
    ("Lost", ((1, 1), (1, 5), (1, 5))),
];

/// R and mean-of-F-and-M ranges; published ranges overlap, the order is part of the definition.
const PUTLER11: [(&str, (Range, Range)); 11] = [
    ("Champions", ((4, 5), (4, 5))),
    ("Cannot Lose Them", ((0, 1), (4, 5))),
    ("Loyal", ((2, 5), (3, 5))),
    ("New", ((4, 5), (0, 1))),
    ("Promising", ((3, 4), (0, 1))),
    ("Potential Loyalist", ((3, 5), (1, 3))),
    ("Need Attention", ((2, 3), (2, 3))),
    ("At Risk", ((0, 2), (2, 5))),
    ("About To Sleep", ((2, 3), (0, 2))),
    ("Hibernating", ((1, 2), (1, 2))),
    ("Lost", ((0, 2), (0, 2))),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_names_the_segment() {
        assert_eq!(segment(5, 5, 5, "r10").unwrap(), "Champions");
        assert_eq!(segment(5, 4, 4, "r10").unwrap(), "Potential Loyalist");
        assert_eq!(segment(1, 1, 1, "r10").unwrap(), "Lost");
        assert_eq!(segment(4, 4, 5, "putler11").unwrap(), "Champions");
        assert_eq!(segment(0, 1, 1, "eight").unwrap(), "important_keep");
        assert_eq!(segment(1, 0, 1, "eight_zh").unwrap(), "重要发展");
    }

    #[test]
    fn an_unknown_set_names_the_known_ones() {
        let message = segment(1, 1, 1, "nine").unwrap_err().to_string();
        assert!(message.contains("eight, eight_zh, r10, putler11"), "{message}");
    }
}
