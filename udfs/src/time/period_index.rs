//! `period_index(date, interval)`: the number of the calendar period that holds a date.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Date32Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::unit::Units;

const NAME: &str = "period_index";

/// BIGINT that rises by one from each `day`, `week` (Monday), `month`, `quarter` or `year` to the next.
///
/// The difference of two is the number of periods between them. NULL in, NULL out.
/// # Errors
/// [`BadArgument`](crate::BadArgument) for another interval.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PeriodIndex {
    signature: Signature,
}

impl PeriodIndex {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self {
            signature: Signature::exact(
                vec![DataType::Date32, DataType::Utf8],
                Volatility::Immutable,
            ),
        }
    }
}

impl Default for PeriodIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for PeriodIndex {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args[..1])?;
        let days = arrays[0].as_primitive::<Date32Type>();
        let units = Units::read(NAME, &args.args[1], days.len())?;
        let index = |(i, days): (usize, Option<i32>)| Some(units.at(i)?.index_of(days?));
        let indexes: Int64Array = days.iter().enumerate().map(index).collect();
        Ok(ColumnarValue::Array(Arc::new(indexes)))
    }
}
