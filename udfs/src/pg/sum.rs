//! `sum` that fails where the engine's wraps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature,
};

/// The engine's `sum`, except that a sum of BIGINT or NUMERIC that leaves its range is error 22003.
///
/// Whole and exact numbers are added in 128 bits, so that the order of rows decides nothing; the range is that of the
/// result. Floats, and `sum(DISTINCT ...)`, are the engine's own. NULL when there is no value.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CheckedSum {
    engine: Arc<AggregateUDF>,
}

impl CheckedSum {
    /// The function, ready to be registered in the place of the engine's.
    pub fn new() -> Self {
        Self { engine: sum_udaf() }
    }

    fn is_ours(args: &AccumulatorArgs) -> bool {
        let is_exact =
            matches!(args.return_field.data_type(), DataType::Int64 | DataType::Decimal128(..));
        is_exact && !args.is_distinct
    }
}

impl Default for CheckedSum {
    fn default() -> Self {
        Self::new()
    }
}

const STATE: DataType = DataType::Decimal128(38, 0);

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.engine.inner().coerce_types(arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.engine.inner().return_type(arg_types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let is_exact =
            matches!(args.return_field.data_type(), DataType::Int64 | DataType::Decimal128(..));
        if is_exact && !args.is_distinct {
            return Ok(vec![Arc::new(Field::new(format!("{}[sum]", args.name), STATE, true))]);
        }
        self.engine.inner().state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if !Self::is_ours(&args) {
            return self.engine.inner().accumulator(args);
        }
        // A window asks for the sum so far again and again.
        let result = args.return_field.data_type().clone();
        Ok(Box::new(Sliding { result, sum: 0, values: 0 }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if !Self::is_ours(&args) {
            return self.engine.inner().create_sliding_accumulator(args);
        }
        let result = args.return_field.data_type().clone();
        Ok(Box::new(Sliding { result, sum: 0, values: 0 }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        Self::is_ours(&args) || self.engine.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        if !Self::is_ours(&args) {
            return self.engine.inner().create_groups_accumulator(args);
        }
        Ok(Box::new(Sums::new(args.return_field.data_type().clone())))
    }
}

fn out_of_range() -> ArrowError {
    ArrowError::ArithmeticOverflow("sum out of range".to_owned())
}

/// The number in `row`, in the unit of the result.
fn number(array: &ArrayRef, row: usize) -> Option<i128> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Int64 => Some(i128::from(array.as_primitive::<Int64Type>().value(row))),
        _ => Some(array.as_primitive::<Decimal128Type>().value(row)),
    }
}

fn result_of(sums: Vec<Option<i128>>, result: &DataType) -> Result<ArrayRef> {
    match result {
        DataType::Decimal128(precision, scale) => {
            let limit = 10u128.pow(u32::from(*precision));
            if sums.iter().flatten().any(|sum| sum.unsigned_abs() >= limit) {
                return Err(out_of_range().into());
            }
            let sums = Decimal128Array::from(sums).with_precision_and_scale(*precision, *scale)?;
            Ok(Arc::new(sums))
        }
        _ => {
            let whole = |sum: Option<i128>| sum.map(i64::try_from).transpose();
            let sums = sums.into_iter().map(whole).collect::<std::result::Result<Vec<_>, _>>();
            Ok(Arc::new(Int64Array::from(sums.map_err(|_| out_of_range())?)))
        }
    }
}

/// Sums of groups; `None` until there is a value.
struct Sums {
    result: DataType,
    sums: Vec<Option<i128>>,
}

impl Sums {
    fn new(result: DataType) -> Self {
        Self { result, sums: Vec::new() }
    }

    fn add(&mut self, group: usize, n: i128) -> Result<()> {
        let sum = &mut self.sums[group];
        *sum = Some(sum.unwrap_or(0).checked_add(n).ok_or_else(out_of_range)?);
        Ok(())
    }
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_num_groups, None);
        let values = &values[0];
        let is_kept = |row: usize| opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        // The usual case, without a look at each value's type.
        if let (DataType::Int64, None, 0) = (values.data_type(), opt_filter, values.null_count()) {
            for (&n, &group) in
                values.as_primitive::<Int64Type>().values().iter().zip(group_indices)
            {
                self.add(group, i128::from(n))?;
            }
            return Ok(());
        }
        for (row, &group) in group_indices.iter().enumerate() {
            if let (true, Some(n)) = (is_kept(row), number(values, row)) {
                self.add(group, n)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        result_of(emit_to.take_needed(&mut self.sums), &self.result)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![result_of(emit_to.take_needed(&mut self.sums), &STATE)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_num_groups, None);
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let is_kept = |row: usize| opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let rows = 0..values[0].len();
        let numbers = rows.map(|row| number(&values[0], row).filter(|_| is_kept(row))).collect();
        Ok(vec![result_of(numbers, &STATE)?])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.capacity() * size_of::<Option<i128>>()
    }
}

/// A sum over a window that moves: values leave it too.
#[derive(Debug)]
struct Sliding {
    result: DataType,
    sum: i128,
    values: usize,
}

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for n in (0..values[0].len()).filter_map(|row| number(&values[0], row)) {
            self.sum = self.sum.checked_add(n).ok_or_else(out_of_range)?;
            self.values += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for n in (0..values[0].len()).filter_map(|row| number(&values[0], row)) {
            self.sum = self.sum.checked_sub(n).ok_or_else(out_of_range)?;
            self.values -= 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = (self.values > 0).then_some(self.sum);
        ScalarValue::try_from_array(&result_of(vec![sum], &self.result)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = (self.values > 0).then_some(self.sum);
        Ok(vec![ScalarValue::try_from_array(&result_of(vec![sum], &STATE)?, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
