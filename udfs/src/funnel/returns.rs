//! `__returns(...)`: the periods in which a customer started, and those in which they came back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal128Builder, Int64Array,
    Int64Builder, ListBuilder,
};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Fields, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::call::{constant, true_rows};
use crate::lists::{list_of, listed};
use crate::one_group::{grouped_alone, rows_as_states};

/// What errors call the function: its users know the report.
const NAME: &str = "retention_matrix";

/// Places of the arguments.
const ENDS: usize = 0;
const LEAST: usize = 1;
const FIRST: usize = 2;
const LATER: usize = 3;
const PERIOD: usize = 4;
const START: usize = 5;
const BACK: usize = 6;
const VALUE: usize = 7;

const MONEY: DataType = DataType::Decimal128(38, 6);

/// The period of a row that says that a customer is in a cohort.
const ENTERED: i64 = -1;

/// A customer's cohorts and returns, a list of structs (cohort, period, value).
///
/// Arguments: the last period of each bracket BIGINT[], how many returns a bracket needs BIGINT, whether the first start alone counts
/// BOOLEAN, whether later returns than a bracket's count in it BOOLEAN (all constant), the number of the row's period BIGINT, whether it
/// is a start and whether it is a return BOOLEAN, its value DECIMAL(38, 6). For each cohort there is a row of period -1, and one for
/// each bracket, counted from the cohort, with enough returns: its last period, and the sum of their values. Memory is 48
/// bytes for each period of a customer.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Returns {
    signature: Signature,
}

impl Returns {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let numbers = list_of(DataType::Int64);
        let types = vec![
            numbers,
            DataType::Int64,
            DataType::Boolean,
            DataType::Boolean,
            DataType::Int64,
            DataType::Boolean,
            DataType::Boolean,
            MONEY,
        ];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for Returns {
    fn default() -> Self {
        Self::new()
    }
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("cohort", DataType::Int64, false),
        Field::new("period", DataType::Int64, false),
        Field::new("value", MONEY, false),
    ])
}

impl AggregateUDFImpl for Returns {
    fn name(&self) -> &str {
        "__returns"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Struct(fields())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |of: &str, item: DataType| {
            Arc::new(Field::new(format!("{}[{of}]", args.name), list_of(item), true))
        };
        Ok(vec![
            field("period", DataType::Int64),
            field("starts", DataType::Int64),
            field("backs", DataType::Int64),
            field("value", MONEY),
        ])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let is = |place: usize| -> Result<bool> {
            Ok(constant(NAME, "kind", &args, place)? == ScalarValue::Boolean(Some(true)))
        };
        let ends = match constant(NAME, "brackets", &args, ENDS)? {
            ScalarValue::List(list) => list.value(0).as_primitive::<Int64Type>().values().to_vec(),
            _ => vec![],
        };
        let least = match constant(NAME, "min_events", &args, LEAST)? {
            ScalarValue::Int64(Some(least)) => least,
            _ => 1,
        };
        let rules = Rules { ends, least, first_only: is(FIRST)?, or_later: is(LATER)? };
        Ok(Box::new(Periods { rules, groups: Vec::new(), capacity: 0 }))
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    /// The last period of each bracket, counted from the cohort; they rise.
    ends: Vec<i64>,
    least: i64,
    first_only: bool,
    or_later: bool,
}

/// What happened in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    number: i64,
    starts: i64,
    backs: i64,
    value: i128,
}

/// The rows of a customer's answer: cohort, period, value. `periods` are in order, each once.
fn answer(periods: &[Period], rules: &Rules) -> Vec<(i64, i64, i128)> {
    let mut rows = Vec::new();
    let starts = periods.iter().enumerate().filter(|(_, period)| period.starts > 0);
    for (i, start) in starts.take(if rules.first_only { 1 } else { usize::MAX }) {
        rows.push((start.number, ENTERED, 0));
        let later = &periods[i..];
        let mut from = 0;
        for &end in &rules.ends {
            let within = later[from..].partition_point(|p| p.number - start.number <= end);
            let to = if rules.or_later { later.len() } else { from + within };
            let backs: i64 = later[from..to].iter().map(|period| period.backs).sum();
            if backs >= rules.least {
                let value = later[from..to].iter().map(|period| period.value).sum();
                rows.push((start.number, end, value));
            }
            from += within;
        }
    }
    rows
}

/// Every group's periods, in the order in which they came; group `g` is `groups[g]`.
struct Periods {
    rules: Rules,
    groups: Vec<Vec<Period>>,
    capacity: usize,
}

impl Periods {
    fn add(&mut self, group: usize, period: Period) {
        let periods = &mut self.groups[group];
        // Rows of a clustered table come in order of time.
        if let Some(last) = periods.last_mut().filter(|last| last.number == period.number) {
            last.starts += period.starts;
            last.backs += period.backs;
            last.value += period.value;
            return;
        }
        let before = periods.capacity();
        periods.push(period);
        self.capacity += periods.capacity() - before;
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<Period>> {
        let mut taken = emit_to.take_needed(&mut self.groups);
        self.capacity -= taken.iter().map(Vec::capacity).sum::<usize>();
        for periods in &mut taken {
            periods.sort_by_key(|period| period.number);
            periods.dedup_by(|next, kept| {
                let is_same = next.number == kept.number;
                if is_same {
                    kept.starts += next.starts;
                    kept.backs += next.backs;
                    kept.value += next.value;
                }
                is_same
            });
        }
        taken
    }
}

impl GroupsAccumulator for Periods {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let numbers = values[PERIOD].as_primitive::<Int64Type>();
        let starts = true_rows(values[START].as_boolean());
        let backs = true_rows(values[BACK].as_boolean());
        let money = values[VALUE].as_primitive::<Decimal128Type>();
        let mut wanted = &starts | &backs;
        if let Some(filter) = opt_filter {
            wanted = &wanted & &true_rows(filter);
        }
        for row in wanted.set_indices().filter(|row| numbers.is_valid(*row)) {
            let is_back = backs.value(row);
            let value = if is_back && money.is_valid(row) { money.value(row) } else { 0 };
            let (starts, backs) = (i64::from(starts.value(row)), i64::from(is_back));
            let number = numbers.value(row);
            self.add(group_indices[row], Period { number, starts, backs, value });
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let customers = self.take(emit_to);
        let (mut cohorts, mut periods, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut lengths = Vec::with_capacity(customers.len());
        for customer in &customers {
            let rows = answer(customer, &self.rules);
            lengths.push(rows.len());
            for (cohort, period, value) in rows {
                cohorts.push(cohort);
                periods.push(period);
                values.push(value);
            }
        }
        let values = Decimal128Array::from(values).with_precision_and_scale(38, 6)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(cohorts)),
            Arc::new(Int64Array::from(periods)),
            Arc::new(values),
        ];
        listed(fields(), columns, lengths)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let [mut number, mut starts, mut backs] =
            [0, 1, 2].map(|_| ListBuilder::new(Int64Builder::new()));
        let money = Decimal128Builder::new().with_precision_and_scale(38, 6)?;
        let mut value = ListBuilder::new(money);
        for periods in self.take(emit_to) {
            for period in periods {
                number.values().append_value(period.number);
                starts.values().append_value(period.starts);
                backs.values().append_value(period.backs);
                value.values().append_value(period.value);
            }
            number.append(true);
            starts.append(true);
            backs.append(true);
            value.append(true);
        }
        Ok(vec![
            Arc::new(number.finish()),
            Arc::new(starts.finish()),
            Arc::new(backs.finish()),
            Arc::new(value.finish()),
        ])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let [numbers, starts, backs, money] = values else { return Ok(()) };
        for (state, &group) in group_indices.iter().enumerate() {
            let list = |column: &ArrayRef| column.as_list::<i32>().value(state);
            let (numbers, starts, backs, money) =
                (list(numbers), list(starts), list(backs), list(money));
            let whole = |array: &ArrayRef| array.as_primitive::<Int64Type>().values().to_vec();
            let (numbers, starts, backs) = (whole(&numbers), whole(&starts), whole(&backs));
            let money = money.as_primitive::<Decimal128Type>();
            for (i, &number) in numbers.iter().enumerate() {
                let (starts, backs, value) = (starts[i], backs[i], money.value(i));
                self.add(group, Period { number, starts, backs, value });
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let single = Self { rules: self.rules.clone(), groups: Vec::new(), capacity: 0 };
        rows_as_states(single, values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.groups.capacity() * size_of::<Vec<Period>>()
            + self.capacity * size_of::<Period>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        for rules in ["1, true, false", "2, false, true"] {
            let money = "CAST(k AS DECIMAL(38, 6))";
            let call = format!(
                "__returns(ARRAY[0, 1, 3], {rules}, CAST(k AS BIGINT), k <= 2, k >= 2, {money})"
            );
            AggregateCase::new(&call).agrees_however_it_is_run();
        }
    }

    /// The definition, row by row: which cohorts, which brackets, how many returns.
    fn slow(rows: &[(i64, bool, bool, i64)], rules: &Rules) -> Vec<(i64, i64, i128)> {
        let mut cohorts: Vec<i64> = rows.iter().filter(|row| row.1).map(|row| row.0).collect();
        cohorts.sort_unstable();
        cohorts.dedup();
        cohorts.truncate(if rules.first_only { 1 } else { usize::MAX });
        let mut found = Vec::new();
        for cohort in cohorts {
            found.push((cohort, ENTERED, 0));
            let of = |bracket: usize| {
                let from = if bracket == 0 { 0 } else { rules.ends[bracket - 1] + 1 };
                let to = if rules.or_later { i64::MAX } else { rules.ends[bracket] };
                let within = |row: &&(i64, bool, bool, i64)| {
                    row.2 && (from..=to).contains(&(row.0 - cohort))
                };
                let backs: Vec<i64> = rows.iter().filter(within).map(|row| row.3).collect();
                let value = i128::from(backs.iter().sum::<i64>());
                (backs.len() as i64 >= rules.least).then_some(value)
            };
            for bracket in 0..rules.ends.len() {
                if let Some(value) = of(bracket) {
                    found.push((cohort, rules.ends[bracket], value));
                }
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn returns_are_those_of_the_definition(
            rows in prop::collection::vec((0i64..8, any::<bool>(), any::<bool>(), 0i64..5), 0..10),
            ends in prop::collection::btree_set(1i64..8, 0..4),
            least in 1i64..3,
            first_only in any::<bool>(),
            or_later in any::<bool>(),
        ) {
            let ends = std::iter::once(0).chain(ends).collect();
            let rules = Rules { ends, least, first_only, or_later };
            let mut periods = Periods { rules: rules.clone(), groups: vec![vec![]], capacity: 0 };
            for &(number, is_start, is_back, value) in rows.iter().filter(|row| row.1 || row.2) {
                let (starts, backs) = (i64::from(is_start), i64::from(is_back));
                let value = if is_back { i128::from(value) } else { 0 };
                periods.add(0, Period { number, starts, backs, value });
            }
            let found = answer(&periods.take(EmitTo::All)[0], &rules);
            prop_assert_eq!(found, slow(&rows, &rules));
        }
    }
}
