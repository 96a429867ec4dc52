//! `range_retention_count(is_first, is_active, day, intervals, granularity)`: on which days after its first ones a customer was active.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int16Builder, Int32Builder, Int64Builder, ListBuilder,
};
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Int16Type, Int32Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::call::{coerced_condition, constant, kept_rows};
use crate::BadArgument;
use crate::lists::list_of;
use crate::one_group::{grouped_alone, rows_as_states};
use crate::time::unit::Unit;

const NAME: &str = "range_retention_count";

/// Places of the arguments.
const FIRST: usize = 0;
const ACTIVE: usize = 1;
const DAY: usize = 2;
const INTERVALS: usize = 3;
const GRANULARITY: usize = 4;
const FORMAT: usize = 5;

/// One customer's returns, to be summed by [`RangeRetentionSum`](super::range_retention_sum::RangeRetentionSum).
///
/// | argument      | type      | meaning                                                                     |
/// |---------------|-----------|-----------------------------------------------------------------------------|
/// | `is_first`    | BOOLEAN   | whether the row is what customers begin with; NULL is false                 |
/// | `is_active`   | BOOLEAN   | whether the row is a return; NULL is false                                  |
/// | `day`         | DATE      | a row with a NULL is skipped; a timestamp counts by its date, an instant by that of UTC |
/// | `intervals`   | BIGINT[]  | constant: how many periods later returns are asked for, 0 or more; any number of them |
/// | `granularity` | TEXT      | constant: `day`, `week` (from Monday) or `month`                             |
/// | `format`      | TEXT      | constant, may be left out: `normal`, or `expand` for every period up to the longest of `intervals` |
///
/// Returns BIGINT[]: how many intervals there are, and of what: 1 days, 2 weeks, 3 months; then for each period in which the customer began, in order, its first day as
/// `yyyymmdd` and for each interval 1 or 0: whether the customer was active in the period that many later. Just the two numbers for a
/// customer that never began; never NULL. Hologres and GaussDB have the function, with 15 intervals at most and numbers that
/// only their sum can read. Memory is 8 bytes a customer and day.
/// # Errors
/// [`BadArgument`] for no interval, a negative one, another granularity or format.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RangeRetentionCount {
    signature: Signature,
}

impl RangeRetentionCount {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for RangeRetentionCount {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for RangeRetentionCount {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() <= GRANULARITY || types.len() > FORMAT + 1 {
            return Err(BadArgument::err(
                NAME,
                "arguments",
                format!(
                    "{} given; write {NAME}(is_first, is_active, day, ARRAY[1, 7, 30], 'day')",
                    types.len()
                ),
            ));
        }
        let day = match &types[DAY] {
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Null => {
                DataType::Date32
            }
            other => {
                return Err(BadArgument::err(NAME, "day", format!("is {other}; a date is needed")));
            }
        };
        let intervals = match &types[INTERVALS] {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
                if item.data_type().is_integer() || item.data_type().is_null() =>
            {
                list_of(DataType::Int64)
            }
            other => {
                return Err(BadArgument::err(
                    NAME,
                    "intervals",
                    format!(
                        "is {other}; an array of whole numbers is needed, such as ARRAY[1, 7, 30]"
                    ),
                ));
            }
        };
        let mut coerced = vec![
            coerced_condition(NAME, 1, &types[FIRST])?,
            coerced_condition(NAME, 2, &types[ACTIVE])?,
            day,
            intervals,
        ];
        coerced.resize(types.len(), DataType::Utf8);
        Ok(coerced)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Int64))
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |part: &str, item| {
            Arc::new(Field::new(format!("{}[{part}]", args.name), list_of(item), true))
        };
        Ok(vec![list("period", DataType::Int32), list("was", DataType::Int16)])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let text = |argument, place| -> Result<String> {
            let value = constant(NAME, argument, &args, place)?;
            Ok(value.try_as_str().flatten().unwrap_or_default().to_lowercase())
        };
        let bad = |argument, problem: String| Err(BadArgument::err(NAME, argument, problem));
        let unit = match text("granularity", GRANULARITY)?.as_str() {
            "day" => Unit::Day,
            "week" => Unit::Week,
            "month" => Unit::Month,
            other => return bad("granularity", format!("{other:?} is none of day, week, month")),
        };
        let ScalarValue::List(list) = constant(NAME, "intervals", &args, INTERVALS)? else {
            return bad("intervals", "is not an array of whole numbers".to_owned());
        };
        let given = list.values().as_primitive::<Int64Type>().iter();
        let mut intervals = Vec::new();
        for interval in given {
            match interval.and_then(|interval| i32::try_from(interval).ok()) {
                Some(interval) if interval >= 0 => intervals.push(interval),
                _ => {
                    let seen = interval.map_or("NULL".to_owned(), |interval| interval.to_string());
                    return bad(
                        "intervals",
                        format!("{seen} is among them; periods are 0 to {}", i32::MAX),
                    );
                }
            }
        }
        let Some(&longest) = intervals.iter().max() else {
            return bad("intervals", "is empty; at least one is needed".to_owned());
        };
        if args.exprs.len() > FORMAT {
            match text("format", FORMAT)?.as_str() {
                "normal" => {}
                "expand" if longest <= EXPANDED_MAX => intervals = (1..=longest).collect(),
                "expand" => {
                    return bad(
                        "format",
                        format!(
                            "expand gives {longest} numbers a day; {EXPANDED_MAX} are the most"
                        ),
                    );
                }
                other => return bad("format", format!("{other:?} is neither normal nor expand")),
            }
        }
        Ok(Box::new(Days { unit, intervals, groups: Vec::new(), entries: 0 }))
    }
}

/// Longest interval that `expand` writes out.
const EXPANDED_MAX: i32 = 3_660;

/// A granularity as a number.
fn code_of(unit: Unit) -> i64 {
    match unit {
        Unit::Day => 1,
        Unit::Week => 2,
        Unit::Month | Unit::Quarter | Unit::Year => 3,
    }
}

/// A customer began in the period, or was active.
const BEGAN: i16 = 1;
const WAS_ACTIVE: i16 = 2;

/// What each customer did, by period.
struct Days {
    unit: Unit,
    intervals: Vec<i32>,
    groups: Vec<BTreeMap<i32, i16>>,
    entries: usize,
}

impl Days {
    fn note(&mut self, group: usize, period: i32, was: i16) {
        let of_group = &mut self.groups[group];
        let before = of_group.len();
        *of_group.entry(period).or_default() |= was;
        self.entries += of_group.len() - before;
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<BTreeMap<i32, i16>> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.entries -= taken.iter().map(BTreeMap::len).sum::<usize>();
        taken
    }
}

impl GroupsAccumulator for Days {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, BTreeMap::new);
        let (first, active) = (values[FIRST].as_boolean(), values[ACTIVE].as_boolean());
        let days = values[DAY].as_primitive::<Date32Type>();
        let holds = |condition: &BooleanArray, row| condition.is_valid(row) && condition.value(row);
        let kept = kept_rows(days.nulls(), opt_filter);
        for (row, &group) in group_indices.iter().enumerate() {
            if kept.as_ref().is_some_and(|kept| kept.is_null(row)) {
                continue;
            }
            let was =
                i16::from(holds(first, row)) * BEGAN + i16::from(holds(active, row)) * WAS_ACTIVE;
            if was > 0 {
                // A period of a date that i32 counts is one, too.
                let period = self.unit.index_of(days.value(row)) as i32;
                self.note(group, period, was);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(Int64Builder::new());
        for periods in self.take(emit_to) {
            lists.values().append_slice(&[self.intervals.len() as i64, code_of(self.unit)]);
            for (&period, _) in periods.iter().filter(|(_, was)| **was & BEGAN != 0) {
                let day = self.unit.start_of(i64::from(period)).unwrap_or_default();
                lists.values().append_value(crate::time::unit::as_number(day));
                for interval in &self.intervals {
                    let later = period.checked_add(*interval).and_then(|later| periods.get(&later));
                    let returned = later.is_some_and(|was| was & WAS_ACTIVE != 0);
                    lists.values().append_value(i64::from(returned));
                }
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut period = ListBuilder::new(Int32Builder::new());
        let mut was = ListBuilder::new(Int16Builder::new());
        for periods in self.take(emit_to) {
            for (at, what) in periods {
                period.values().append_value(at);
                was.values().append_value(what);
            }
            period.append(true);
            was.append(true);
        }
        Ok(vec![Arc::new(period.finish()), Arc::new(was.finish())])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, BTreeMap::new);
        let [periods, was] = values else { return Ok(()) };
        let (periods, was) = (periods.as_list::<i32>(), was.as_list::<i32>());
        for (state, &group) in group_indices.iter().enumerate() {
            let (periods, was) = (periods.value(state), was.value(state));
            let periods = periods.as_primitive::<Int32Type>().values().iter();
            for (period, was) in periods.zip(was.as_primitive::<Int16Type>().values()) {
                self.note(group, *period, *was);
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let single = Self { unit: self.unit, intervals: vec![], groups: Vec::new(), entries: 0 };
        rows_as_states(single, values, opt_filter)
    }

    fn size(&self) -> usize {
        // A node of the tree holds up to eleven entries.
        size_of_val(self)
            + self.groups.capacity() * size_of::<BTreeMap<i32, i16>>()
            + self.entries * 2 * size_of::<(i32, i16)>()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        let day = "CAST(at AS DATE) + k";
        for end in ["'day'", "'week'", "'day', 'expand'"] {
            let call = format!("range_retention_count(k = 1, k > 1, {day}, ARRAY[0, 1, 3], {end})");
            AggregateCase::new(&call).agrees_however_it_is_run();
        }
    }
}
