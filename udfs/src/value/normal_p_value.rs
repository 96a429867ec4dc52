//! `normal_p_value(z)`: how often chance alone would give as much.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// DOUBLE: the probability that a standard normal number is as far from 0 as `z`, or farther, on either side. NULL for NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalPValue {
    signature: Signature,
}

impl NormalPValue {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

impl Default for NormalPValue {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for NormalPValue {
    fn name(&self) -> &str {
        "normal_p_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let values = arrays[0].as_primitive::<Float64Type>().iter();
        let p = |z: f64| libm::erfc(z.abs() / std::f64::consts::SQRT_2);
        Ok(ColumnarValue::Array(Arc::new(values.map(|z| z.map(p)).collect::<Float64Array>())))
    }
}

#[cfg(test)]
mod tests {
    /// 1.959964 is the number that 5 % are beyond.
    #[test]
    fn the_number_that_everybody_knows() {
        assert!(
            (libm::erfc(1.959_963_984_540_054 / std::f64::consts::SQRT_2) - 0.05).abs() < 1e-12
        );
    }
}
