//! `__kept_cuts(rows, measure, cuts)`: thresholds that a table keeps, for the scores of other customers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;
use crate::lists::list_of;

const MEASURES: [&str; 3] = ["recency_days", "frequency", "monetary"];

/// What thresholds are compared as.
const COMPARED: DataType = DataType::Decimal128(38, 6);

/// The centre of a measure, then its thresholds, of the newest day of a table that `rfm_cuts` filled. A row is
/// `measure|as_of|cut|value|centre`, decimals with six places; `cuts` is how many are needed, 0 for any. Only reports write it.
/// # Errors
/// [`BadArgument`] for a table without one set of rising thresholds, as many for each of the three measures.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct KeptCuts {
    signature: Signature,
}

impl KeptCuts {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let types = vec![list_of(DataType::Utf8), DataType::Utf8, DataType::Int64];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for KeptCuts {
    fn default() -> Self {
        Self::new()
    }
}

fn bad(problem: impl Into<String>) -> datafusion::error::DataFusionError {
    BadArgument::err("rfm", "scores_from", problem)
}

/// The thresholds of a measure by their place, and its centre.
#[derive(Default)]
struct Kept {
    cuts: BTreeMap<i64, i128>,
    centre: Option<i128>,
}

/// The centre and the thresholds of each measure.
fn read(rows: &ArrayRef, needed: i64) -> Result<[Vec<Option<i128>>; 3]> {
    let rows: Vec<Vec<&str>> =
        rows.as_string::<i32>().iter().flatten().map(|row| row.split('|').collect()).collect();
    let Some(newest) = rows.iter().filter_map(|row| row.get(1)).max() else {
        return Err(bad("the table has no thresholds; rfm_cuts gives some"));
    };
    let mut kept = [Kept::default(), Kept::default(), Kept::default()];
    for row in rows.iter().filter(|row| row.get(1) == Some(newest)) {
        let [measure, _, cut, value, centre] = row[..] else {
            return Err(bad("a row has not the columns that rfm_cuts gives"));
        };
        let Some(of) = MEASURES.iter().position(|known| *known == measure) else {
            return Err(bad(format!("there is no measure {measure:?}: {}", MEASURES.join(", "))));
        };
        let decimal = |text: &str| text.replace('.', "").parse::<i128>().ok();
        let (Ok(cut), Some(value)) = (cut.parse(), decimal(value)) else {
            return Err(bad(format!("{measure}: a threshold or its number is NULL")));
        };
        if kept[of].cuts.insert(cut, value).is_some() {
            return Err(bad(format!("{measure}: threshold {cut} of {newest} is there twice")));
        }
        kept[of].centre = decimal(centre);
    }
    let counts = kept.each_ref().map(|kept| kept.cuts.len());
    if counts[0] == 0 || counts.iter().any(|count| *count != counts[0]) {
        let [r, f, m] = counts;
        return Err(bad(format!(
            "the thresholds of {newest} are {r} of recency_days, {f} of frequency and {m} of monetary; as many are needed of each"
        )));
    }
    if needed > 0 && counts[0] as i64 != needed {
        return Err(bad(format!(
            "{} thresholds are kept, the segments are defined over scores of 1 to {}",
            counts[0],
            needed + 1
        )));
    }
    for (kept, measure) in kept.iter().zip(MEASURES) {
        let values: Vec<i128> = kept.cuts.values().copied().collect();
        if values.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(bad(format!("{measure}: the thresholds of {newest} do not rise")));
        }
    }
    Ok(kept.map(|kept| {
        std::iter::once(kept.centre).chain(kept.cuts.into_values().map(Some)).collect()
    }))
}

impl ScalarUDFImpl for KeptCuts {
    fn name(&self) -> &str {
        "__kept_cuts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(COMPARED))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (lists, measures) = (arrays[0].as_list::<i32>(), arrays[1].as_string::<i32>());
        let needed = arrays[2].as_primitive::<Int64Type>();
        if lists.is_empty() {
            return Ok(ColumnarValue::Array(new_empty_array(&list_of(COMPARED))));
        }
        // They are the same in every row.
        if lists.is_null(0) {
            return Err(bad("the table has no thresholds; rfm_cuts gives some"));
        }
        let all = read(&lists.value(0), needed.value(0))?;
        let of = MEASURES.iter().position(|known| *known == measures.value(0)).unwrap_or(0);
        let values = Decimal128Array::from(all[of].clone()).with_precision_and_scale(38, 6)?;
        let item = Arc::new(Field::new_list_field(COMPARED, true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = ListArray::try_new(item, offsets, Arc::new(values), None)?;
        Ok(ColumnarValue::Scalar(ScalarValue::List(Arc::new(list))))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn read_rows(
        rows: &[&str],
        needed: i64,
    ) -> std::result::Result<[Vec<Option<i128>>; 3], String> {
        let rows: ArrayRef = Arc::new(StringArray::from(rows.to_vec()));
        read(&rows, needed).map_err(|error| error.to_string())
    }

    #[test]
    fn the_newest_set_is_taken_and_half_a_set_is_refused() {
        let set = |day: &str, shift: i64| -> Vec<String> {
            MEASURES.iter().map(|m| format!("{m}|{day}|1|{}.000000|7.500000", shift)).collect()
        };
        let rows = [set("2024-01-31", 1), set("2024-02-29", 2)].concat();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let read = read_rows(&rows, 0).unwrap();
        assert_eq!(read[2], [Some(7_500_000), Some(2_000_000)]);
        assert!(read_rows(&rows, 4).unwrap_err().contains("scores of 1 to 5"));
        assert!(read_rows(&rows[..5], 0).unwrap_err().contains("as many are needed"));
        assert!(read_rows(&[], 0).unwrap_err().contains("no thresholds"));
        assert!(read_rows(&["monetary|2024-01-31|1||"], 0).unwrap_err().contains("NULL"));
        assert!(read_rows(&["money|2024-01-31|1|1.000000|"], 0).unwrap_err().contains("measure"));
    }
}
