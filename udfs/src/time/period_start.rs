//! `period_start(index, interval)`: the first day of a numbered calendar period.

use std::sync::Arc;

use arrow::array::{AsArray, Date32Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::unit::Units;

const NAME: &str = "period_start";

/// DATE on which the period numbered by [`period_index`](super::period_index) begins.
///
/// NULL in, NULL out; NULL for a period outside the calendar.
/// # Errors
/// [`BadArgument`](crate::BadArgument) for another interval than day, week, month, quarter or year.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PeriodStart {
    signature: Signature,
}

impl PeriodStart {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self {
            signature: Signature::exact(
                vec![DataType::Int64, DataType::Utf8],
                Volatility::Immutable,
            ),
        }
    }
}

impl Default for PeriodStart {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for PeriodStart {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Date32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args[..1])?;
        let indexes = arrays[0].as_primitive::<Int64Type>();
        let units = Units::read(NAME, &args.args[1], indexes.len())?;
        let start = |(i, index): (usize, Option<i64>)| units.at(i)?.start_of(index?);
        let days: Date32Array = indexes.iter().enumerate().map(start).collect();
        Ok(ColumnarValue::Array(Arc::new(days)))
    }
}
