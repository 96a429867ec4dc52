//! `__one_currency(lowest, highest, report)`: refuses to add up amounts of several currencies.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

/// Reports that add amounts.
const REPORTS: [&str; 8] = [
    "rfm",
    "rfm_cuts",
    "rfm_trend",
    "customer_stage",
    "stage_trend",
    "dormant_trend",
    "btyd_summary",
    "member_levels",
];

/// The report of this name, for what is told of its arguments.
pub(super) fn report_named(name: &str) -> &'static str {
    REPORTS.iter().find(|report| **report == name).copied().unwrap_or("rfm")
}

/// True; an error where the lowest and the highest currency among some orders are two. Only reports write it.
/// # Errors
/// [`BadArgument`] that names both currencies.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OneCurrency {
    signature: Signature,
}

impl OneCurrency {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let types = vec![DataType::Utf8; 3];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for OneCurrency {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for OneCurrency {
    fn name(&self) -> &str {
        "__one_currency"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (lowest, highest) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let is_two = |row: &usize| {
            lowest.is_valid(*row)
                && highest.is_valid(*row)
                && lowest.value(*row) != highest.value(*row)
        };
        match (0..lowest.len()).find(is_two) {
            None => Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))),
            Some(row) => {
                let name = arrays[2].as_string::<i32>().value(row);
                let report = report_named(name);
                Err(BadArgument::err(
                    report,
                    "currency",
                    format!(
                        "amounts of {:?} and of {:?} cannot be added; choose one in a query in brackets, or convert them there",
                        lowest.value(row),
                        highest.value(row)
                    ),
                ))
            }
        }
    }
}
