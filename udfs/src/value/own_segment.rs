//! `__own_segment(r, f, m, rules)`: the name of a segment by rules of the user's own.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;
use crate::lists::list_of;

/// The name of the first rule that fits the scores; `other` where none does. A rule is `r_lo|r_hi|f_lo|f_hi|m_lo|m_hi|name`, an empty
/// bound is none. Only reports write it.
/// # Errors
/// [`BadArgument`] for rules that are none, or no rule at all.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OwnSegment {
    signature: Signature,
}

impl OwnSegment {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let score = DataType::Int64;
        let types = vec![score.clone(), score.clone(), score, list_of(DataType::Utf8)];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for OwnSegment {
    fn default() -> Self {
        Self::new()
    }
}

/// Bounds of each score, and a name.
struct Rule {
    bounds: [(i64, i64); 3],
    name: String,
}

impl Rule {
    fn read(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.splitn(7, '|').collect();
        let bad = || {
            let seen = parts[..parts.len().min(6)].join(", ");
            BadArgument::err(
                "rfm",
                "segment_rules",
                format!("a rule has the bounds {seen}; whole numbers or NULL are needed"),
            )
        };
        let [r_lo, r_hi, f_lo, f_hi, m_lo, m_hi, name] = parts[..] else { return Err(bad()) };
        let bound = |text: &str, none: i64| match text {
            "" => Ok(none),
            number => number.parse().map_err(|_| bad()),
        };
        let range = |lo, hi| {
            Ok::<_, datafusion::error::DataFusionError>((
                bound(lo, i64::MIN)?,
                bound(hi, i64::MAX)?,
            ))
        };
        Ok(Self {
            bounds: [range(r_lo, r_hi)?, range(f_lo, f_hi)?, range(m_lo, m_hi)?],
            name: name.to_owned(),
        })
    }

    fn fits(&self, scores: [i64; 3]) -> bool {
        self.bounds.iter().zip(scores).all(|((lo, hi), score)| (*lo..=*hi).contains(&score))
    }
}

fn rules_of(list: &ArrayRef) -> Result<Vec<Rule>> {
    list.as_string::<i32>().iter().flatten().map(Rule::read).collect()
}

impl ScalarUDFImpl for OwnSegment {
    fn name(&self) -> &str {
        "__own_segment"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [r, f, m] = [0, 1, 2].map(|at| arrays[at].as_primitive::<Int64Type>());
        let lists = arrays[3].as_list::<i32>();
        if lists.is_empty() {
            return Ok(ColumnarValue::Array(Arc::new(StringArray::from(Vec::<&str>::new()))));
        }
        // The rules are the same in every row.
        if lists.is_null(0) {
            return Err(BadArgument::err("rfm", "segment_rules", "the relation has no rules"));
        }
        let rules = rules_of(&lists.value(0))?;
        let named = (0..r.len()).map(|row| {
            let scores = [r.value(row), f.value(row), m.value(row)];
            rules.iter().find(|rule| rule.fits(scores)).map_or("other", |rule| rule.name.as_str())
        });
        Ok(ColumnarValue::Array(Arc::new(StringArray::from_iter_values(named))))
    }
}
