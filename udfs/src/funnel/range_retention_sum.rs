//! `range_retention_sum(counts)`: how many customers began in each period, and how many of them came back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Builder, ListBuilder, StringBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::call::kept_rows;
use crate::BadArgument;
use crate::lists::list_of;
use crate::one_group::{grouped_alone, rows_as_states};

const NAME: &str = "range_retention_sum";

/// TEXT[], one text a period in which somebody began, in order: `yyyymmdd,customers,returned,...`, the first day of the period, how
/// many customers began in it, and how many of them returned after each interval.
///
/// The argument is what [`RangeRetentionCount`](super::range_retention_count::RangeRetentionCount) gives for each customer; a NULL is
/// skipped. An empty array without customers; never NULL. Hologres and GaussDB have the function; Hologres writes zeros up to 15
/// intervals behind. Memory is 8 bytes a period and interval.
/// # Errors
/// [`BadArgument`] for arrays of different intervals, or that no `range_retention_count` gave.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RangeRetentionSum {
    signature: Signature,
}

impl RangeRetentionSum {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for RangeRetentionSum {
    fn default() -> Self {
        Self::new()
    }
}

fn bad(problem: impl Into<String>) -> datafusion::error::DataFusionError {
    BadArgument::err(NAME, "counts", problem)
}

impl AggregateUDFImpl for RangeRetentionSum {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::List(item) | DataType::LargeList(item)] if item.data_type().is_integer() => {
                Ok(vec![list_of(DataType::Int64)])
            }
            [DataType::Null] => Ok(vec![list_of(DataType::Int64)]),
            [other] => Err(bad(format!("is {other}; what range_retention_count gives is needed"))),
            _ => Err(bad(format!("{} arguments given, one is needed", types.len()))),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Utf8))
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(
            format!("{}[counts]", args.name),
            list_of(DataType::Int64),
            true,
        ))])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        _args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Sums::default()))
    }
}

/// Of one group: the number of intervals, their granularity, and by period the customers and those that returned.
#[derive(Debug, Default)]
struct Sum {
    intervals: Option<usize>,
    granularity: i64,
    periods: BTreeMap<i64, Vec<i64>>,
}

impl Sum {
    fn of(&mut self, intervals: i64, granularity: i64) -> Result<usize> {
        let intervals = usize::try_from(intervals).map_err(|_| foreign())?;
        let Some(known) = self.intervals else {
            (self.intervals, self.granularity) = (Some(intervals), granularity);
            return Ok(intervals);
        };
        if known != intervals || self.granularity != granularity {
            return Err(bad(
                "arrays of different intervals, or of days and of weeks or months, are among them",
            ));
        }
        Ok(intervals)
    }

    /// Adds to a period, and says how many numbers there are more.
    fn add(&mut self, day: i64, numbers: impl Iterator<Item = i64>) -> Result<usize> {
        let width = self.intervals.unwrap_or_default() + 1;
        let mut more = 0;
        let sums = self.periods.entry(day).or_insert_with(|| {
            more = width;
            vec![0; width]
        });
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum = sum.checked_add(number).ok_or_else(foreign)?;
        }
        Ok(more)
    }
}

fn foreign() -> datafusion::error::DataFusionError {
    bad("an array is among them that range_retention_count did not give")
}

/// The sums of every group.
#[derive(Debug, Default)]
struct Sums {
    groups: Vec<Sum>,
    /// Numbers that all groups hold.
    numbers: usize,
}

impl Sums {
    fn take(&mut self, emit_to: EmitTo) -> Vec<Sum> {
        let taken = emit_to.take_needed(&mut self.groups);
        let of = |sum: &Sum| sum.periods.len() * (sum.intervals.unwrap_or_default() + 1);
        self.numbers -= taken.iter().map(of).sum::<usize>();
        taken
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
        self.groups.resize_with(total_num_groups, Sum::default);
        let counts = values[0].as_list::<i32>();
        let kept = kept_rows(counts.nulls(), opt_filter);
        for (row, &group) in group_indices.iter().enumerate() {
            if kept.as_ref().is_some_and(|kept| kept.is_null(row)) {
                continue;
            }
            let numbers = counts.value(row);
            let numbers = numbers.as_primitive::<Int64Type>();
            let [intervals, granularity @ 1..=3, records @ ..] = &numbers.values()[..] else {
                return Err(foreign());
            };
            let sum = &mut self.groups[group];
            let width = sum.of(*intervals, *granularity)? + 1;
            let are_flags = |record: &[i64]| record[1..].iter().all(|flag| (0..=1).contains(flag));
            let is_whole = numbers.null_count() == 0 && records.len() % width == 0;
            if !is_whole || !records.chunks(width).all(are_flags) {
                return Err(foreign());
            }
            for record in records.chunks(width) {
                self.numbers +=
                    sum.add(record[0], std::iter::once(1).chain(record[1..].iter().copied()))?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for sum in self.take(emit_to) {
            for (day, numbers) in sum.periods {
                let numbers = numbers.iter().map(|number| format!(",{number}")).collect::<String>();
                lists.values().append_value(format!("{day:08}{numbers}"));
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }

    /// The number of intervals, and for each period its first day and its sums; nothing before any array was seen.
    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut lists = ListBuilder::new(Int64Builder::new());
        for sum in self.take(emit_to) {
            if let Some(intervals) = sum.intervals {
                lists.values().append_slice(&[intervals as i64, sum.granularity]);
            }
            for (day, numbers) in sum.periods {
                lists.values().append_value(day);
                lists.values().append_slice(&numbers);
            }
            lists.append(true);
        }
        Ok(vec![Arc::new(lists.finish())])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Sum::default);
        let [states] = values else { return Ok(()) };
        let states = states.as_list::<i32>();
        for (state, &group) in group_indices.iter().enumerate() {
            let numbers = states.value(state);
            let numbers = numbers.as_primitive::<Int64Type>();
            let [intervals, granularity, records @ ..] = &numbers.values()[..] else { continue };
            let sum = &mut self.groups[group];
            let width = sum.of(*intervals, *granularity)? + 2;
            for record in records.chunks_exact(width) {
                self.numbers += sum.add(record[0], record[1..].iter().copied())?;
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        rows_as_states(Self::default(), values, opt_filter)
    }

    fn size(&self) -> usize {
        // A period's entry in the tree and the head of its numbers are some eight numbers more.
        size_of_val(self)
            + self.groups.capacity() * size_of::<Sum>()
            + self.numbers * 4 * size_of::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        let counts =
            "CASE WHEN k < 5 THEN make_array(2, 1, 20240500 + k, 1, k % 2, 20240600, 0, 1) END";
        AggregateCase::new(&format!("range_retention_sum({counts})")).agrees_however_it_is_run();
    }
}
