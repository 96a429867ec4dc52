//! Arithmetic that fails where PostgreSQL's fails: overflow of integers, division of floats by zero.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::call_name::Chain;
use crate::BadArgument;

/// The operators that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `a + b` of integers.
    Add,
    /// `a - b` of integers.
    Subtract,
    /// `a * b` of integers.
    Multiply,
    /// `a / b` of floats.
    Divide,
    /// `a % b` of floats.
    Modulo,
}

/// `a op b`, or an error: integers out of range (22003), floats divided by zero (22012).
///
/// The engine's own operators wrap integers and give infinity. Both operands get the wider of their types. NULL in, NULL
/// out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Checked {
    operation: Operation,
    signature: Signature,
    /// The name of a call with many calls within it, made when it was planned.
    chain: Chain,
}

impl Checked {
    /// The function, ready to be registered.
    pub fn new(operation: Operation) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { operation, signature, chain: Chain::default() }
    }

    /// A call of it.
    pub fn of(operation: Operation, left: Expr, right: Expr) -> Expr {
        let args = vec![left, right];
        let chain = Chain::over(operation as u64, &args, |expr| match expr {
            Expr::ScalarFunction(call) => Some(&call.func.inner().downcast_ref::<Self>()?.chain),
            _ => None,
        });
        Arc::new(ScalarUDF::from(Self { chain, ..Self::new(operation) })).call(args)
    }
}

/// The type in which two numbers are computed.
fn common(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Float32, Float64, Int8, Int16, Int32, Int64, Null, UInt8, UInt16, UInt32};
    let rank = |t: &DataType| match t {
        Null => Some(0),
        Int8 | UInt8 | Int16 => Some(1),
        UInt16 | Int32 => Some(2),
        UInt32 | Int64 | DataType::UInt64 => Some(3),
        Float32 => Some(4),
        Float64 | DataType::Float16 | DataType::Decimal128(..) => Some(5),
        _ => None,
    };
    // A float beside anything but itself is a double, as in PostgreSQL.
    let (low, high) = (rank(left)?.min(rank(right)?), rank(left)?.max(rank(right)?));
    Some(match (low, high) {
        (_, 0 | 3) => Int64,
        (_, 1) => Int16,
        (_, 2) => Int32,
        (4 | 0, 4) => Float32,
        _ => Float64,
    })
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
            Operation::Divide => "checked_divide",
            Operation::Modulo => "checked_modulo",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.chain.name(self.name(), args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let both = match arg_types {
            [left, right] => common(left, right),
            _ => None,
        };
        let both = both.ok_or_else(|| {
            BadArgument::err(
                "arithmetic",
                "operands",
                format!("two numbers are needed, not {arg_types:?}"),
            )
        })?;
        Ok(vec![both.clone(), both])
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = args.number_rows;
        let side = |value: &ColumnarValue| -> Result<Box<dyn Datum>> {
            Ok(match value {
                ColumnarValue::Array(array) => Box::new(ArrayRef::clone(array)),
                ColumnarValue::Scalar(scalar) => Box::new(scalar.to_scalar()?),
            })
        };
        let (left, right) = (side(&args.args[0])?, side(&args.args[1])?);
        if matches!(self.operation, Operation::Divide | Operation::Modulo) {
            refuse_zero(left.as_ref(), right.as_ref())?;
        }
        let compute = match self.operation {
            Operation::Add => numeric::add,
            Operation::Subtract => numeric::sub,
            Operation::Multiply => numeric::mul,
            Operation::Divide => numeric::div,
            Operation::Modulo => numeric::rem,
        };
        let result = compute(left.as_ref(), right.as_ref())?;
        if is_constant {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(
                &result, 0,
            )?));
        }
        debug_assert_eq!(result.len(), rows);
        Ok(ColumnarValue::Array(result))
    }
}

/// A zero under a float that is not NULL itself.
fn refuse_zero(left: &dyn Datum, right: &dyn Datum) -> Result<()> {
    let ((dividends, one), (divisors, other)) = (left.get(), right.get());
    let is_zero = |row: usize| {
        let row = if other { 0 } else { row };
        divisors.is_valid(row)
            && match divisors.data_type() {
                DataType::Float32 => divisors.as_primitive::<Float32Type>().value(row) == 0.0,
                DataType::Float64 => divisors.as_primitive::<Float64Type>().value(row) == 0.0,
                _ => false,
            }
    };
    let rows = if one { divisors.len() } else { dividends.len() };
    let has_zero =
        (0..rows).any(|row| is_zero(row) && dividends.is_valid(if one { 0 } else { row }));
    if has_zero { Err(ArrowError::DivideByZero.into()) } else { Ok(()) }
}
