//! `numeric_div(a, b)`: division of exact numbers with enough digits.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

const NAME: &str = "numeric_div";

/// Digits behind the point that a quotient has at least, as in PostgreSQL.
const SCALE_MIN: i8 = 16;

/// Digits of a NUMERIC here.
const PRECISION: u8 = 38;

/// `a / b` of NUMERIC, the last digit rounded half away from zero; 16 digits behind the point, or more where an operand has
/// more. An integer beside a NUMERIC is one too.
///
/// NULL in, NULL out.
/// # Errors
/// Division by zero (22012); a quotient with more than 38 digits (22003).
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NumericDiv {
    signature: Signature,
}

impl NumericDiv {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for NumericDiv {
    fn default() -> Self {
        Self::new()
    }
}

fn exact(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Decimal128(..) => Some(data_type.clone()),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => Some(DataType::Decimal128(*p, *s)),
        DataType::Decimal256(_, s) => Some(DataType::Decimal128(PRECISION, *s)),
        DataType::Null => Some(DataType::Decimal128(PRECISION, 0)),
        t if t.is_integer() => Some(DataType::Decimal128(20, 0)),
        _ => None,
    }
}

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

impl ScalarUDFImpl for NumericDiv {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        arg_types.iter().map(exact).collect::<Option<Vec<_>>>().filter(|t| t.len() == 2).ok_or_else(
            || {
                BadArgument::err(
                    NAME,
                    "operands",
                    format!("two numbers are needed, not {arg_types:?}"),
                )
            },
        )
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let scale = scale_of(&arg_types[0]).max(scale_of(&arg_types[1])).max(SCALE_MIN);
        Ok(DataType::Decimal128(PRECISION, scale))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (left, right) = (&arrays[0], &arrays[1]);
        let scale = scale_of(args.return_type());
        // l/10^a divided by r/10^b, in units of 10^-scale, is l * 10^(scale - a + b) / r.
        let shift = scale - scale_of(left.data_type()) + scale_of(right.data_type());
        let divide = Divider::new(u32::from(shift.unsigned_abs()));
        let (lefts, rights) =
            (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
        let mut quotients = Vec::with_capacity(lefts.len());
        for (l, r) in lefts.iter().zip(rights) {
            quotients.push(match (l, r) {
                (Some(l), Some(r)) => Some(divide.quotient(l, r)?),
                _ => None,
            });
        }
        let quotients =
            Decimal128Array::from(quotients).with_precision_and_scale(PRECISION, scale)?;
        debug_assert_eq!(quotients.len(), lefts.len());
        Ok(ColumnarValue::Array(Arc::new(quotients)))
    }
}

struct Divider {
    factor: Option<i128>,
    wide: i256,
}

impl Divider {
    fn new(shift: u32) -> Self {
        let ten = i256::from_i128(10);
        Self { factor: 10i128.checked_pow(shift), wide: ten.wrapping_pow(shift) }
    }

    fn quotient(&self, l: i128, r: i128) -> Result<i128, ArrowError> {
        if r == 0 {
            return Err(ArrowError::DivideByZero);
        }
        if let Some(n) = self.factor.and_then(|factor| l.checked_mul(factor)) {
            let (quotient, rest) = (n / r, n % r);
            let is_half = rest.unsigned_abs() >= r.unsigned_abs().div_ceil(2);
            let away = if (n < 0) == (r < 0) { 1 } else { -1 };
            return Ok(if rest != 0 && is_half { quotient + away } else { quotient });
        }
        let too_large = || ArrowError::ArithmeticOverflow("numeric field overflow".to_owned());
        let n = i256::from_i128(l).checked_mul(self.wide).ok_or_else(too_large)?;
        let r = i256::from_i128(r);
        let (quotient, rest) = (n.wrapping_div(r), n.wrapping_rem(r));
        let is_half = rest.wrapping_abs().wrapping_mul(i256::from_i128(2)) >= r.wrapping_abs();
        let away = if n.is_negative() == r.is_negative() { i256::ONE } else { i256::MINUS_ONE };
        let rounded = if is_half { quotient.wrapping_add(away) } else { quotient };
        rounded.to_i128().filter(|q| q.unsigned_abs() < 10u128.pow(38)).ok_or_else(too_large)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_half_away_from_zero_at_any_width() {
        let divide = |l, r, shift| Divider::new(shift).quotient(l, r);
        assert_eq!(divide(2, 3, 4).unwrap(), 6667);
        assert_eq!(divide(-2, 3, 4).unwrap(), -6667);
        assert_eq!(divide(1, 8, 2).unwrap(), 13);
        assert_eq!(divide(-1, 8, 2).unwrap(), -13);
        assert_eq!(divide(1, 3, 2).unwrap(), 33);
        assert!(matches!(divide(1, 0, 2), Err(ArrowError::DivideByZero)));
        // Wide: the product has more than 38 digits, the quotient has not.
        let large = 10i128.pow(36);
        assert_eq!(divide(large, large * 3, 20).unwrap(), 33_333_333_333_333_333_333);
        assert!(divide(large, 3, 20).is_err());
        for (l, r) in [(7, 2), (-7, 2), (7, -2), (1, 3), (5, 7), (-5, 7)] {
            let narrow = divide(l, r, 5).unwrap();
            let wide = Divider { factor: None, wide: i256::from_i128(100_000) };
            assert_eq!(wide.quotient(l, r).unwrap(), narrow, "{l}/{r}");
        }
    }
}
