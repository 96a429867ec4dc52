//! `sequence_match('pattern', time, condition, ...)`, `sequence_count`, `sequence_match_events`: events in an order.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::call::{coerced_condition, coerced_time, constant, listed, units_of};
use super::chain::Touch;
use super::pattern::{Event, Pattern};
use super::rows::Rows;
use super::state::{Customer, Question, Touches, instants, instants_type, state_fields};
use crate::BadArgument;
use crate::names::Names;
use crate::one_group::grouped_alone;

/// Places of the arguments; more conditions follow.
const PATTERN: usize = 0;
const TIME: usize = 1;
const CONDITIONS: usize = 2;

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

    fn answer_type(self, time_type: &DataType) -> DataType {
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

    fn coerce(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.asked.name();
        if types.len() <= CONDITIONS {
            return Err(BadArgument::err(
                name,
                "conditions",
                format!(
                    "{} arguments given; write {name}('(?1)(?2)', time, condition, ...) with at least one condition",
                    types.len()
                ),
            ));
        }
        let mut coerced = vec![DataType::Utf8, coerced_time(name, &types[TIME])?];
        for (i, condition) in types[CONDITIONS..].iter().enumerate() {
            coerced.push(coerced_condition(name, i + 1, condition)?);
        }
        Ok(coerced)
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
        self.coerce(arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.asked.answer_type(&self.coerce(arg_types)?[TIME]))
    }

    fn is_nullable(&self) -> bool {
        false
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
        let name = self.asked.name();
        let time_type = args.expr_fields[TIME].data_type().clone();
        let pattern = constant(name, "pattern", &args, PATTERN)?;
        let text = pattern.try_as_str().flatten().unwrap_or_default();
        let conditions = args.exprs.len() - CONDITIONS;
        let pattern = Pattern::parse(text, conditions, units_of(&time_type))
            .map_err(|problem| BadArgument::err(name, "pattern", problem))?;
        let question = SequenceQuestion { asked: self.asked, pattern, time_type };
        Ok(Box::new(Touches::new(Arc::new(question))))
    }
}

#[derive(Debug)]
struct SequenceQuestion {
    asked: Asked,
    pattern: Pattern,
    time_type: DataType,
}

impl Question for SequenceQuestion {
    fn time(&self) -> usize {
        TIME
    }

    fn conditions(&self, values: &[ArrayRef]) -> Vec<BooleanBuffer> {
        listed(&values[CONDITIONS..])
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn needs_others(&self) -> bool {
        false
    }

    fn answer(&self, customers: Vec<Customer>, _names: &Names) -> Result<ArrayRef> {
        let of = |touches: &Vec<Touch>| {
            let mut rows: Vec<(i64, Vec<u32>)> = Vec::with_capacity(touches.len());
            let mut of_instant = Rows::default();
            for instant in touches.chunk_by(|a, b| a.at == b.at) {
                of_instant.read(instant);
                rows.extend(of_instant.steps.drain(..).map(|steps| (instant[0].at, steps)));
            }
            rows
        };
        let pattern = &self.pattern;
        let each = customers.iter().map(|customer| of(&customer.touches));
        Ok(match self.asked {
            Asked::Match => Arc::new(Int32Array::from_iter_values(
                each.map(|rows| i32::from(pattern.matches(&events(&rows)))),
            )),
            Asked::Count => Arc::new(Int64Array::from_iter_values(
                each.map(|rows| pattern.count(&events(&rows)) as i64),
            )),
            Asked::Events => {
                instants(each.map(|rows| pattern.times(&events(&rows))).collect(), &self.time_type)?
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
