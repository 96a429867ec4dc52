//! `__rate_of(rate, currency, day, report)`: the rate by which an amount is converted, or an error that says which one is missing.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::one_currency::report_named;
use crate::BadArgument;

/// A rate has eight places.
const RATE: DataType = DataType::Decimal128(16, 8);

const ONE: i128 = 100_000_000;

/// The rate; 1 for an amount without a currency. Only reports write it.
/// # Errors
/// [`BadArgument`] that names the currency and the day of an amount for which there is no rate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RateOf {
    signature: Signature,
}

impl RateOf {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let types = vec![RATE, DataType::Utf8, DataType::Date32, DataType::Utf8];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for RateOf {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for RateOf {
    fn name(&self) -> &str {
        "__rate_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(RATE)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let rates = arrays[0].as_primitive::<Decimal128Type>();
        let (currencies, reports) = (arrays[1].as_string::<i32>(), arrays[3].as_string::<i32>());
        let days = arrays[2].as_primitive::<Date32Type>();
        let rate = |row: usize| match (currencies.is_valid(row), rates.is_valid(row)) {
            (false, _) => Ok(ONE),
            (true, true) => Ok(rates.value(row)),
            (true, false) => {
                let day = days.value_as_date(row).map(|day| format!(" on {day}"));
                Err(BadArgument::err(
                    report_named(reports.value(row)),
                    "rates",
                    format!(
                        "there is no rate of {:?}{} or before",
                        currencies.value(row),
                        day.unwrap_or_default()
                    ),
                ))
            }
        };
        let found = (0..rates.len()).map(rate).collect::<Result<Vec<i128>>>()?;
        let found = Decimal128Array::from(found).with_precision_and_scale(16, 8)?;
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}
