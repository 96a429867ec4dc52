//! `__funnel_best`, `__funnel_attempts` and `__funnel_daily`: the attempts that the reports about funnels count.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringViewArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::attempts::{Attempt, AttemptRules, Finder, Timeline};
use super::call::{
    coerced_condition, coerced_time, coerced_window, constant, listed as conditions_of,
    window_in_units_of,
};
use super::chain::Rules;
use super::modes::Modes;
use super::state::{Customer, Question, Touches, as_times, state_fields};
use crate::BadArgument;
use crate::lists::{list_of, listed, lists};
use crate::names::{NO_NAME, Names};
use crate::one_group::grouped_alone;

/// What errors call the function: its users know the reports.
const NAME: &str = "funnel";

/// Places of the arguments; conditions of steps follow, then those that exclude.
const ORDER: usize = 0;
const WINDOW: usize = 1;
const STEPS: usize = 2;
const OPTIONAL: usize = 3;
const GAPS: usize = 4;
const EXCLUSIONS: usize = 5;
const TIME: usize = 6;
const TAG: usize = 7;
const BUCKET: usize = 8;
const CONDITIONS: usize = 9;

/// Which attempts are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// The best one.
    Best,
    /// All, one after the other.
    All,
    /// The best one of those that begin in each bucket.
    ByBucket,
}

/// A customer's attempts at a funnel, a list of structs (level, times, values, first, last, bucket).
///
/// Arguments: order TEXT (`ordered`, `fixed`, `strict`, `any`), window INTERVAL, number of steps BIGINT, places of optional steps BIGINT[],
/// the most time from each step to the next one that is taken INTERVAL[], the two steps of each condition that excludes BIGINT[] (all
/// constant, the arrays may be NULL), time, a tag and a bucket TEXT of the row, the conditions of the steps and those that exclude.
/// `times` and `values` are the times and tags of the steps taken, NULL for an optional one that was not; `first` is the
/// tag of the first row of step 1, `last` of the last row of any step, `bucket` that of the first step. A row is one step at most.
/// # Errors
/// [`BadArgument`] for a window or a time between steps that is negative or in months.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Funnels {
    signature: Signature,
    asked: Asked,
}

impl Funnels {
    /// The function that gives what is asked.
    pub fn new(asked: Asked) -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), asked }
    }
}

fn fields(time_type: &DataType) -> Fields {
    Fields::from(vec![
        Field::new("level", DataType::Int32, false),
        Field::new("times", list_of(time_type.clone()), false),
        Field::new("values", list_of(DataType::Utf8View), false),
        Field::new("first", DataType::Utf8View, true),
        Field::new("last", DataType::Utf8View, true),
        Field::new("bucket", DataType::Utf8View, true),
    ])
}

impl AggregateUDFImpl for Funnels {
    fn name(&self) -> &str {
        match self.asked {
            Asked::Best => "__funnel_best",
            Asked::All => "__funnel_attempts",
            Asked::ByBucket => "__funnel_daily",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() <= CONDITIONS {
            return Err(BadArgument::err(NAME, "steps", "none given; at least one is needed"));
        }
        let span = DataType::Interval(IntervalUnit::MonthDayNano);
        let mut coerced = vec![
            DataType::Utf8,
            coerced_window(NAME, "window", &types[WINDOW])?,
            DataType::Int64,
            list_of(DataType::Int64),
            list_of(span),
            list_of(DataType::Int64),
            coerced_time(NAME, &types[TIME])?,
            DataType::Utf8View,
            DataType::Utf8View,
        ];
        for (i, condition) in types[CONDITIONS..].iter().enumerate() {
            coerced.push(coerced_condition(NAME, i + 1, condition)?);
        }
        Ok(coerced)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Struct(fields(&coerced_time(NAME, &types[TIME])?))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name))
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Touches::new(Arc::new(Asking::read(self.asked, &args)?))))
    }
}

#[derive(Debug)]
struct Asking {
    asked: Asked,
    rules: AttemptRules,
    time_type: DataType,
}

impl Asking {
    fn read(asked: Asked, args: &AccumulatorArgs) -> Result<Self> {
        let time_type = args.expr_fields[TIME].data_type().clone();
        let window = constant(NAME, "window", args, WINDOW)?;
        let window = window_in_units_of(NAME, "window", &window, &time_type)?;
        let order = constant(NAME, "order", args, ORDER)?;
        let order = order.try_as_str().flatten().unwrap_or_default();
        let modes = Modes::ONCE.and(match order {
            "strict" => Modes::ORDER,
            "fixed" => Modes::FIXED,
            _ => Modes::default(),
        });
        let ScalarValue::Int64(Some(steps)) = constant(NAME, "steps", args, STEPS)? else {
            return Err(BadArgument::err(NAME, "steps", "have no number"));
        };
        let steps = steps as usize;
        let list = |place: usize| match constant(NAME, "steps", args, place) {
            Ok(ScalarValue::List(list)) => Some(list.value(0)),
            _ => None,
        };
        let numbers = |place: usize| -> Vec<u32> {
            let Some(numbers) = list(place) else { return vec![] };
            let numbers = numbers.as_primitive::<Int64Type>();
            numbers.values().iter().map(|number| *number as u32).collect()
        };
        let optional = numbers(OPTIONAL);
        let optional = (1..=steps as u32).map(|step| optional.contains(&step)).collect();
        let mut gaps = vec![None; steps];
        if let Some(given) = list(GAPS) {
            let given = given.as_primitive::<IntervalMonthDayNanoType>();
            for (i, gap) in given.iter().enumerate().take(steps.saturating_sub(1)) {
                if gap.is_some() {
                    let gap = ScalarValue::IntervalMonthDayNano(gap);
                    gaps[i] = Some(window_in_units_of(NAME, "step_window", &gap, &time_type)?);
                }
            }
        }
        let exclusions = numbers(EXCLUSIONS).chunks_exact(2).map(|two| (two[0], two[1])).collect();
        let rules = AttemptRules {
            chain: Rules { steps, window, modes },
            optional,
            gaps,
            exclusions,
            is_any_order: order == "any",
        };
        Ok(Self { asked, rules, time_type })
    }

    /// The attempts of a customer.
    fn found(
        &self,
        finder: &mut Finder<'_>,
        timeline: &Timeline,
        customer: &Customer,
    ) -> Vec<Attempt> {
        let places = timeline.places();
        match self.asked {
            Asked::Best => finder.best(timeline, places).into_iter().collect(),
            Asked::All => finder.all(timeline, places),
            Asked::ByBucket => {
                let bucket = |place: usize| tag_of(customer, timeline.number(place), BUCKET);
                let mut best: Vec<(u32, Attempt)> = Vec::new();
                let mut from = 0;
                while from < places.end {
                    let of = bucket(from);
                    let to = (from..places.end).find(|i| bucket(*i) != of).unwrap_or(places.end);
                    if let Some(attempt) = finder.best(timeline, from..to) {
                        // Clocks that go back at midnight make a day come twice.
                        match best.iter_mut().find(|(there, _)| *there == of) {
                            Some((_, there)) if there.level >= attempt.level => {}
                            Some((_, there)) => *there = attempt,
                            None => best.push((of, attempt)),
                        }
                    }
                    from = to;
                }
                best.into_iter().map(|(_, attempt)| attempt).collect()
            }
        }
    }
}

/// The tag or the bucket of a row.
fn tag_of(customer: &Customer, row: u32, place: usize) -> u32 {
    customer.tags[row as usize * (CONDITIONS - TAG) + (place - TAG)]
}

impl Question for Asking {
    fn time(&self) -> usize {
        TIME
    }

    fn conditions(&self, values: &[ArrayRef]) -> Vec<BooleanBuffer> {
        conditions_of(&values[CONDITIONS..])
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn needs_others(&self) -> bool {
        self.rules.chain.modes.has(Modes::ORDER)
    }

    fn tags(&self) -> std::ops::Range<usize> {
        TAG..CONDITIONS
    }

    fn answer(&self, customers: Vec<Customer>, names: &Names) -> Result<ArrayRef> {
        let mut levels = Vec::new();
        let (mut times, mut values) = (Vec::<Option<i64>>::new(), Vec::new());
        let [mut first, mut last, mut buckets] = [const { Vec::<Option<u32>>::new() }; 3];
        let (mut step_counts, mut counts) = (Vec::new(), Vec::new());
        let mut timeline = Timeline::default();
        let mut finder = Finder::new(&self.rules);
        let named = |name: u32| (name != NO_NAME).then_some(name);
        for customer in &customers {
            timeline.read(&customer.touches, &self.rules);
            let of_row = |row: u32, place: usize| named(tag_of(customer, row, place));
            let attempts = self.found(&mut finder, &timeline, customer);
            counts.push(attempts.len());
            if attempts.is_empty() {
                continue;
            }
            let first_tag = timeline.first(&self.rules).and_then(|row| of_row(row, TAG));
            let last_tag = timeline.last(&self.rules).and_then(|row| of_row(row, TAG));
            for attempt in attempts {
                levels.push(attempt.level as i32);
                step_counts.push(attempt.steps.len());
                times.extend(attempt.steps.iter().map(|step| step.map(|(at, _)| at)));
                values
                    .extend(attempt.steps.iter().map(|s| s.and_then(|(_, row)| of_row(row, TAG))));
                first.push(first_tag);
                last.push(last_tag);
                let begin = attempt.steps.iter().flatten().next();
                buckets.push(begin.and_then(|(_, row)| of_row(*row, BUCKET)));
            }
        }
        let texts: StringViewArray = names.array();
        let text = |numbers: Vec<Option<u32>>| take(&texts, &UInt32Array::from(numbers), None);
        let times = as_times(Arc::new(Int64Array::from(times)), &self.time_type)?;
        let of_steps = |items: ArrayRef| lists(items, step_counts.iter().copied());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(levels)),
            of_steps(times)?,
            of_steps(text(values)?)?,
            text(first)?,
            text(last)?,
            text(buckets)?,
        ];
        listed(fields(&self.time_type), columns, counts)
    }
}
