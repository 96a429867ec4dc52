//! `quantile_cuts(value, n)`: where a group's values part into n classes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, i256};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::quantile_score::quantile_cuts as scaled_cuts;
use crate::BadArgument;
use crate::funnel::call::{constant, kept_rows};
use crate::lists::{list_of, lists};
use crate::one_group::{grouped_alone, rows_as_states};

const NAME: &str = "quantile_cuts";

/// Values are compared as DECIMAL(38,6).
const COMPARED: DataType = DataType::Decimal128(38, 6);

/// NUMERIC(38,6)[]: the n - 1 cuts between `n` classes, in order.
///
/// | argument | type         | meaning                                                     |
/// |----------|--------------|-------------------------------------------------------------|
/// | `value`  | number       | taken as DECIMAL(38,6); NULL is not counted                  |
/// | `n`      | whole number | constant, 2 to 1000: the number of classes                   |
///
/// The cuts are the k/n quantiles by linear interpolation (type 7, as `PERCENTILE_CONT`), rounded down to six digits, which moves no
/// value of six digits over a cut: `score_fixed(value, quantile_cuts)` is `quantile_score(value, n)`. NULL without values. Memory is
/// 16 bytes a value; time is that of a sort.
/// # Errors
/// [`BadArgument`] for a value that is not a number, or an `n` outside 2 to 1000.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct QuantileCuts {
    signature: Signature,
}

impl QuantileCuts {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for QuantileCuts {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for QuantileCuts {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, classes] = types else {
            return Err(BadArgument::err(
                NAME,
                "arguments",
                "two are needed: quantile_cuts(value, n)",
            ));
        };
        if !(value.is_numeric() || value.is_null()) {
            return Err(BadArgument::err(NAME, "value", format!("is {value}; a number is needed")));
        }
        if !classes.is_integer() {
            return Err(BadArgument::err(
                NAME,
                "n",
                format!("is {classes}; a whole number is needed"),
            ));
        }
        Ok(vec![COMPARED, DataType::Int64])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(COMPARED))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[values]", args.name), list_of(COMPARED), true))])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match constant(NAME, "n", &args, 1)? {
            ScalarValue::Int64(Some(n)) if (2..=1000).contains(&n) => {
                Ok(Box::new(Values { classes: n as usize, groups: Vec::new(), values: 0 }))
            }
            other => Err(BadArgument::err(NAME, "n", format!("is {other}; 2 to 1000 are allowed"))),
        }
    }
}

/// Every group's values.
struct Values {
    classes: usize,
    groups: Vec<Vec<i128>>,
    /// How many there are in all groups.
    values: usize,
}

impl Values {
    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<i128>> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.values -= taken.iter().map(Vec::len).sum::<usize>();
        taken
    }
}

/// The cuts of values, at least one, rounded down.
fn cuts_of(values: Vec<i128>, classes: usize) -> impl Iterator<Item = i128> {
    let n = i256::from(classes as i64);
    scaled_cuts(values, classes).into_iter().map(move |cut| {
        let (whole, rest) = (cut.wrapping_div(n), cut.wrapping_rem(n));
        let down = if rest < i256::ZERO { i256::ONE } else { i256::ZERO };
        // It lies between two values.
        (whole - down).to_i128().unwrap_or_default()
    })
}

fn decimals(values: Vec<i128>) -> Result<ArrayRef> {
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, 6)?))
}

impl GroupsAccumulator for Values {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let numbers = values[0].as_primitive::<Decimal128Type>();
        let kept = kept_rows(numbers.nulls(), opt_filter);
        for (row, &group) in group_indices.iter().enumerate() {
            if kept.as_ref().is_none_or(|kept| kept.is_valid(row)) {
                self.groups[group].push(numbers.value(row));
                self.values += 1;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (mut cuts, mut lengths, mut is_there) = (Vec::new(), Vec::new(), Vec::new());
        for values in self.take(emit_to) {
            let before = cuts.len();
            is_there.push(!values.is_empty());
            cuts.extend(cuts_of(values, self.classes));
            lengths.push(cuts.len() - before);
        }
        let all = lists(decimals(cuts)?, lengths)?;
        let without = BooleanArray::from_iter(is_there.iter().map(|is_there| Some(!is_there)));
        Ok(arrow::compute::nullif(&all, &without)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let taken = self.take(emit_to);
        let lengths: Vec<usize> = taken.iter().map(Vec::len).collect();
        Ok(vec![lists(decimals(taken.concat())?, lengths)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let [states] = values else { return Ok(()) };
        for (state, &group) in group_indices.iter().enumerate() {
            let values = states.as_list::<i32>().value(state);
            let values = values.as_primitive::<Decimal128Type>().values();
            self.groups[group].extend_from_slice(values);
            self.values += values.len();
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let single = Self { classes: self.classes, groups: Vec::new(), values: 0 };
        rows_as_states(single, values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.groups.capacity() * size_of::<Vec<i128>>()
            + self.values * 2 * size_of::<i128>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        AggregateCase::new("quantile_cuts(k, 5)").agrees_however_it_is_run();
    }

    proptest! {
        /// A cut lies between its neighbours, where R's type 7 puts it: at (N - 1) k / n, counted from 0.
        #[test]
        fn cuts_are_quantiles(mut values in proptest::collection::vec(-1000i128..1000, 1..30), classes in 2usize..12) {
            values.sort_unstable();
            for (k, cut) in (1..classes).zip(cuts_of(values.clone(), classes)) {
                let place = (values.len() - 1) as f64 * k as f64 / classes as f64;
                let low = values[place.floor() as usize] as f64;
                let high = values[(place.floor() as usize + 1).min(values.len() - 1)] as f64;
                let expected = low + (high - low) * (place - place.floor());
                prop_assert!((cut as f64 - expected).abs() <= 1.0, "{} {}", cut, expected);
                prop_assert!(cut as f64 <= expected + 1e-6);
            }
        }
    }
}
