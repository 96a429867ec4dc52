//! `sequence_match('pattern', time, condition, ...)`, `sequence_count`, `sequence_match_events`: events in an order.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::call::{
    all_known, coerced_condition, coerced_time, constant, dialect_of, listed, types_of, units_of,
};
use super::chain::Touch;
use super::dialect::Dialect;
use super::kept::not_a_state;
use super::pattern::{Event, Pattern};
use super::rows::Rows;
use super::spec::unit_of;
use super::state::{Customer, Question, Touches, instants, instants_type, state_fields};
use crate::BadArgument;
use crate::names::Names;
use crate::one_group::grouped_alone;

/// Place of the pattern: behind a dialect, if there is one. The time and the conditions follow.
fn place_of_pattern(types: &[DataType]) -> usize {
    usize::from(matches!(types, [first, second, ..] if first.is_string() && second.is_string()))
}

/// The type of the time of a call, as [`coerce`] has made it.
pub(crate) fn time_type(types: &[DataType]) -> &DataType {
    &types[place_of_pattern(types) + 1]
}

/// Types that a call may have; an error names the first argument that cannot be used.
pub(crate) fn coerce(name: &'static str, types: &[DataType]) -> Result<Vec<DataType>> {
    let pattern = place_of_pattern(types);
    if types.len() < pattern + 3 {
        return Err(BadArgument::err(
            name,
            "conditions",
            format!(
                "{} arguments given; write {name}('(?1)(?2)', time, condition, ...) with at least one condition",
                types.len()
            ),
        ));
    }
    let mut coerced = vec![DataType::Utf8; pattern + 1];
    coerced.push(coerced_time(name, &types[pattern + 1])?);
    for (i, condition) in types[pattern + 2..].iter().enumerate() {
        coerced.push(coerced_condition(name, i + 1, condition)?);
    }
    Ok(coerced)
}

/// What is asked of a customer's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Whether they match: `sequence_match`, INT, 1 or 0.
    Match,
    /// How often they match, none of them twice: `sequence_count`, BIGINT.
    Count,
    /// When the first match was, or of the first part that goes furthest: `sequence_match_events`, a list of times.
    Events,
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Match => "sequence_match",
            Self::Count => "sequence_count",
            Self::Events => "sequence_match_events",
        }
    }

    pub(crate) fn answer_type(self, time_type: &DataType) -> DataType {
        match self {
            Self::Match => DataType::Int32,
            Self::Count => DataType::Int64,
            Self::Events => instants_type(time_type),
        }
    }
}

/// Whether, how often or when one customer's events follow a pattern.
///
/// | argument    | type                            | meaning                                                  |
/// |-------------|---------------------------------|----------------------------------------------------------|
/// | `dialect`   | TEXT                            | constant, may be left out: whose rules for NULL are followed |
/// | `pattern`   | TEXT                            | constant: `(?1)` an event that satisfies condition 1; `.` any event that satisfies one; `.*` any number of them; `(?t<=60)`, `<`, `>=`, `>`, `==` the time from the event before to the one after, others between them allowed; `(?T<=3600)` the time from the first to the last |
/// | `time`      | TIMESTAMP, DATE or whole number | a row with a NULL is skipped; numbers in the pattern are seconds on a timestamp, days on a date, else the column's unit |
/// | `condition` | BOOLEAN, any number             | NULL is false; an event that satisfies none is not seen  |
///
/// Two items side by side are two events with no other that satisfies a condition between them. An event is one item at most.
/// Events of one instant are in the order of the conditions that they satisfy. 0, or an empty list, without events; never
/// NULL. The answer does not depend on the order of rows. One pass over the sorted events.
/// # Errors
/// [`BadArgument`] for a pattern that cannot be read, a condition that is not boolean. Named after ClickHouse's and Doris's
/// functions; see `docs/sequence_match.md`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Sequence {
    asked: Asked,
    signature: Signature,
    aliases: Vec<String>,
}

impl Sequence {
    /// The function, ready to be registered.
    pub fn new(asked: Asked) -> Self {
        let aliases = vec![asked.name().replace('_', "")];
        Self { asked, signature: Signature::user_defined(Volatility::Immutable), aliases }
    }
}

impl AggregateUDFImpl for Sequence {
    fn name(&self) -> &str {
        self.asked.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(self.asked.name(), arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.asked.answer_type(time_type(&coerce(self.asked.name(), arg_types)?)))
    }

    fn is_nullable(&self) -> bool {
        // In a dialect in which rows are left out.
        self.asked != Asked::Events
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        ScalarValue::new_default(data_type)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_fields(args.name))
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let question = SequenceQuestion::from_args(self.asked.name(), self.asked, &args)?;
        Ok(Box::new(Touches::new(Arc::new(question))))
    }
}

/// What a call asks.
#[derive(Debug)]
pub(crate) struct SequenceQuestion {
    asked: Asked,
    dialect: Dialect,
    /// The pattern as it was given, and as it is followed.
    text: String,
    pattern: Pattern,
    conditions: usize,
    /// Place of the time; conditions follow.
    time: usize,
    time_type: DataType,
}

impl SequenceQuestion {
    /// Reads the constant arguments of `function` from its call.
    pub(crate) fn from_args(
        function: &'static str,
        asked: Asked,
        args: &AccumulatorArgs,
    ) -> Result<Self> {
        let types = types_of(args.expr_fields);
        let at = place_of_pattern(&types);
        let dialect = dialect_of(function, args, at > 0)?;
        let pattern = constant(function, "pattern", args, at)?;
        let text = pattern.try_as_str().flatten().unwrap_or_default().to_owned();
        let conditions = types.len() - at - 2;
        Self::new(function, asked, dialect, text, conditions, at + 1, types[at + 1].clone())
    }

    fn new(
        function: &'static str,
        asked: Asked,
        dialect: Dialect,
        text: String,
        conditions: usize,
        time: usize,
        time_type: DataType,
    ) -> Result<Self> {
        let pattern = Pattern::parse(&text, conditions, units_of(&time_type))
            .map_err(|problem| BadArgument::err(function, "pattern", problem))?;
        Ok(Self { asked, dialect, text, pattern, conditions, time, time_type })
    }

    /// What was called, as a text that a stored state keeps: the number of conditions, the dialect and the pattern.
    pub(crate) fn call(&self) -> String {
        let unit = unit_of(&self.time_type);
        format!("{} {unit} {} {}", self.conditions, self.dialect.name(), self.text)
    }

    /// The question that wrote this [`Self::call`], or another one of the same pattern.
    pub(crate) fn recalled(
        function: &'static str,
        asked: Asked,
        call: &str,
        time_type: &DataType,
    ) -> Result<Self> {
        let mut parts = call.splitn(4, ' ');
        let mut part = || parts.next().ok_or_else(|| not_a_state(function));
        let conditions = part()?.parse().map_err(|_| not_a_state(function))?;
        // A table of states may have put times of another type among its own.
        if part()? != unit_of(time_type) {
            return Err(not_a_state(function));
        }
        let dialect = Dialect::of(part()?).ok_or_else(|| not_a_state(function))?;
        let text = part()?.to_owned();
        Self::new(function, asked, dialect, text, conditions, 1, time_type.clone())
    }

    fn conditions_of<'a>(&self, values: &'a [ArrayRef]) -> &'a [ArrayRef] {
        &values[self.time + 1..]
    }
}

impl Question for SequenceQuestion {
    fn time(&self) -> usize {
        self.time
    }

    fn conditions(&self, values: &[ArrayRef]) -> Vec<BooleanBuffer> {
        listed(self.conditions_of(values))
    }

    fn seen(&self, values: &[ArrayRef]) -> Option<BooleanBuffer> {
        self.dialect.drops_unknown().then(|| all_known(self.conditions_of(values)))
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn needs_others(&self) -> bool {
        false
    }

    fn answer(&self, customers: Vec<Customer>, _names: &Names) -> Result<ArrayRef> {
        // In Doris the times of a pattern are seconds, on dates as well.
        let is_in_seconds = self.dialect == Dialect::Doris && self.time_type == DataType::Date32;
        let scale = if is_in_seconds { 86_400 } else { 1 };
        let of = |touches: &Vec<Touch>| {
            let mut rows: Vec<(i64, Vec<u32>)> = Vec::with_capacity(touches.len());
            let mut of_instant = Rows::default();
            for instant in touches.chunk_by(|a, b| a.at == b.at) {
                of_instant.read(instant);
                let at = instant[0].at * scale;
                rows.extend(of_instant.steps.drain(..).map(|steps| (at, steps)));
            }
            rows
        };
        let pattern = &self.pattern;
        let each = customers.iter().map(|customer| {
            let rows = of(&customer.touches);
            (!customer.is_unknown()).then_some(rows)
        });
        Ok(match self.asked {
            Asked::Match => Arc::new(Int32Array::from_iter(
                each.map(|rows| rows.map(|rows| i32::from(pattern.matches(&events(&rows))))),
            )),
            Asked::Count => {
                let count = |rows: Option<Vec<_>>| match rows {
                    Some(rows) => Some(pattern.count(&events(&rows)) as i64),
                    None => (self.dialect == Dialect::Doris).then_some(0),
                };
                Arc::new(Int64Array::from_iter(each.map(count)))
            }
            Asked::Events => {
                let none_if_unknown = each.map(Option::unwrap_or_default);
                let times = none_if_unknown.map(|rows| {
                    pattern.times(&events(&rows)).into_iter().map(|at| at / scale).collect()
                });
                instants(times.collect(), &self.time_type)?
            }
        })
    }
}

fn events(rows: &[(i64, Vec<u32>)]) -> Vec<Event<'_>> {
    rows.iter().map(|(at, steps)| (*at, steps.as_slice())).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    /// However the rows are cut, ordered, merged, filtered or emitted, the answer is the same.
    #[test]
    fn states_merge() {
        for call in [
            "sequence_match('(?1).*(?2)(?t<=1)(?3)', at, k = 1, k = 2, k >= 3)",
            "sequence_count('(?1)(?2)', at, k <= 2, k = 2)",
            "sequence_match_events('(?1).*(?2).*(?3)(?T<=3)', at, k = 1, k = 2, k = 3)",
        ] {
            AggregateCase::new(call).agrees_however_it_is_run();
        }
    }
}
