//! `sequence_next_node('direction', 'base', time, event, base_condition, condition, ...)`: what came after a chain of events.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Builder, ListBuilder, StringArray, StringBuilder,
    UInt64Builder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::call::{coerced_condition, coerced_time, constant, listed, true_rows};
use super::state::times_of;
use crate::BadArgument;
use crate::lists::list_of;
use crate::one_group::{grouped_alone, rows_as_states};

const NAME: &str = "sequence_next_node";

/// Places of the arguments; more conditions follow.
const DIRECTION: usize = 0;
const BASE: usize = 1;
const TIME: usize = 2;
const EVENT: usize = 3;
const BASE_CONDITION: usize = 4;
const CHAIN: usize = 5;

/// Conditions of an event are bits of a number, that of the base among them.
const CONDITIONS_MAX: usize = 64;

/// The event next to a chain of events that lie side by side, beginning with a base.
///
/// | argument         | type                            | meaning                                                       |
/// |------------------|---------------------------------|---------------------------------------------------------------|
/// | `direction`      | TEXT                            | constant: `forward` in time or `backward`                     |
/// | `base`           | TEXT                            | constant: where the chain begins: `head`, the first event (forward only); `tail`, the last one (backward only); `first_match` or `last_match`, the first or last event that satisfies the base condition and the first condition |
/// | `time`           | TIMESTAMP, DATE or whole number | a row with a NULL is skipped                                  |
/// | `event`          | TEXT                            | what is given; a row with a NULL is skipped                   |
/// | `base_condition` | BOOLEAN                         | has to hold on the base                                       |
/// | `condition`      | BOOLEAN, 1 to 63                | the first one on the base, the next one on its neighbour, ...; NULL is false |
///
/// Returns TEXT: the event next to the last one of the chain; NULL where the chain is not there, or nothing is next to it. Events
/// of one instant are in the order of their names. The answer does not depend on the order of rows. An event takes 32 bytes and
/// its name; time is that of a sort.
/// # Errors
/// [`BadArgument`] for a direction or base that is none, a condition that is not boolean. Named after ClickHouse's function; see
/// `docs/sequence_next_node.md`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SequenceNextNode {
    signature: Signature,
    aliases: Vec<String>,
}

impl SequenceNextNode {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let aliases = vec![NAME.replace('_', "")];
        Self { signature: Signature::user_defined(Volatility::Immutable), aliases }
    }
}

impl Default for SequenceNextNode {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for SequenceNextNode {
    fn name(&self) -> &str {
        NAME
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() <= CHAIN || types.len() - BASE_CONDITION > CONDITIONS_MAX {
            return Err(BadArgument::err(
                NAME,
                "conditions",
                format!(
                    "{} arguments given; write {NAME}('forward', 'head', time, event, base_condition, condition, ...) with 1 to {} conditions",
                    types.len(),
                    CONDITIONS_MAX - 1
                ),
            ));
        }
        let mut coerced = vec![DataType::Utf8, DataType::Utf8, coerced_time(NAME, &types[TIME])?];
        coerced.push(DataType::Utf8);
        for (i, condition) in types[BASE_CONDITION..].iter().enumerate() {
            coerced.push(coerced_condition(NAME, i, condition)?);
        }
        Ok(coerced)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |of: &str, item| {
            Arc::new(Field::new(format!("{}[{of}]", args.name), list_of(item), true))
        };
        Ok(vec![
            field("at", DataType::Int64),
            field("event", DataType::Utf8),
            field("conditions", DataType::UInt64),
        ])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let word = |argument: &'static str, place: usize| -> Result<String> {
            let word = constant(NAME, argument, &args, place)?;
            Ok(word.try_as_str().flatten().unwrap_or_default().to_owned())
        };
        let (direction, base) = (word("direction", DIRECTION)?, word("base", BASE)?);
        let wanted = Wanted::read(&direction, &base, args.exprs.len() - CHAIN)?;
        Ok(Box::new(Events { wanted, groups: Vec::new(), bytes: 0 }))
    }
}

/// Where a chain begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// The first event in the direction.
    End,
    /// The first event in time that matches.
    FirstMatch,
    /// The last one.
    LastMatch,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    is_forward: bool,
    base: Base,
    /// Events of the chain.
    length: usize,
}

impl Wanted {
    fn read(direction: &str, base: &str, length: usize) -> Result<Self> {
        let is_forward = match direction {
            "forward" => true,
            "backward" => false,
            other => {
                return Err(BadArgument::err(
                    NAME,
                    "direction",
                    format!("is {other:?}; allowed are forward, backward"),
                ));
            }
        };
        let base = match (base, is_forward) {
            ("head", true) | ("tail", false) => Base::End,
            ("first_match", _) => Base::FirstMatch,
            ("last_match", _) => Base::LastMatch,
            (other, _) => {
                let end = if is_forward { "head" } else { "tail" };
                return Err(BadArgument::err(
                    NAME,
                    "base",
                    format!("is {other:?}; {direction} begins at {end}, first_match or last_match"),
                ));
            }
        };
        Ok(Self { is_forward, base, length })
    }

    /// The event next to the chain, of events in order.
    fn next<'a>(&self, events: &'a [Event]) -> Option<&'a str> {
        let is_base = |event: &Event| event.conditions & 0b1 != 0;
        let is_match = |event: &Event| event.conditions & 0b11 == 0b11;
        let base = match (self.base, self.is_forward) {
            (Base::End, true) => events.first().filter(|event| is_base(event)).map(|_| 0),
            (Base::End, false) => {
                events.last().filter(|event| is_base(event)).map(|_| events.len() - 1)
            }
            (Base::FirstMatch, _) => events.iter().position(is_match),
            (Base::LastMatch, _) => events.iter().rposition(is_match),
        }?;
        let at = |far: usize| {
            let place = if self.is_forward { base.checked_add(far) } else { base.checked_sub(far) };
            place.and_then(|place| events.get(place))
        };
        let holds = |far: usize| at(far).is_some_and(|e| e.conditions & (0b10 << far) != 0);
        if !(0..self.length).all(holds) {
            return None;
        }
        at(self.length).map(|event| &*event.name)
    }
}

/// An event, in the order of time and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: i64,
    name: Box<str>,
    /// The base condition is the first bit.
    conditions: u64,
}

/// Every group's events, unsorted until evaluated; group `g` is `groups[g]`.
struct Events {
    wanted: Wanted,
    groups: Vec<Vec<Event>>,
    /// Bytes of events and their names, about.
    bytes: usize,
}

impl Events {
    fn push(&mut self, group: usize, event: Event) {
        self.bytes += size_of::<Event>() + event.name.len();
        self.groups[group].push(event);
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<Event>> {
        let taken = emit_to.take_needed(&mut self.groups);
        let bytes = |event: &Event| size_of::<Event>() + event.name.len();
        self.bytes -= taken.iter().flatten().map(bytes).sum::<usize>();
        taken
    }
}

impl GroupsAccumulator for Events {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let times = times_of(&values[TIME])?;
        let names = values[EVENT].as_string::<i32>();
        let conditions = listed(&values[BASE_CONDITION..]);
        let kept = opt_filter.map(true_rows);
        for (row, &group) in group_indices.iter().enumerate() {
            let is_kept = kept.as_ref().is_none_or(|kept| kept.value(row));
            if !is_kept || times.is_null(row) || names.is_null(row) {
                continue;
            }
            let bits = conditions.iter().enumerate();
            let bits = bits.fold(0, |bits, (i, of)| bits | u64::from(of.value(row)) << i);
            let name = names.value(row).into();
            self.push(group, Event { at: times.value(row), name, conditions: bits });
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut groups = self.take(emit_to);
        let next = groups.iter_mut().map(|events| {
            events.sort_unstable();
            self.wanted.next(events)
        });
        Ok(Arc::new(next.collect::<StringArray>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut at = ListBuilder::new(Int64Builder::new());
        let mut names = ListBuilder::new(StringBuilder::new());
        let mut conditions = ListBuilder::new(UInt64Builder::new());
        for events in self.take(emit_to) {
            for event in events {
                at.values().append_value(event.at);
                names.values().append_value(&event.name);
                conditions.values().append_value(event.conditions);
            }
            at.append(true);
            names.append(true);
            conditions.append(true);
        }
        Ok(vec![Arc::new(at.finish()), Arc::new(names.finish()), Arc::new(conditions.finish())])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let [at, names, conditions] = values else { return Ok(()) };
        let (at, names, conditions) =
            (at.as_list::<i32>(), names.as_list::<i32>(), conditions.as_list::<i32>());
        for (state, &group) in group_indices.iter().enumerate() {
            let (at, names, conditions) =
                (at.value(state), names.value(state), conditions.value(state));
            let (at, names, conditions) = (
                at.as_primitive::<Int64Type>(),
                names.as_string::<i32>(),
                conditions.as_primitive::<UInt64Type>(),
            );
            for row in 0..at.len() {
                let name = names.value(row).into();
                let conditions = conditions.value(row);
                self.push(group, Event { at: at.value(row), name, conditions });
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let single = Self { wanted: self.wanted, groups: Vec::new(), bytes: 0 };
        rows_as_states(single, values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.groups.capacity() * size_of::<Vec<Event>>() + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::AggregateCase;

    /// However the rows are cut, ordered, merged, filtered or emitted, the answer is the same.
    #[test]
    fn states_merge() {
        for call in [
            "sequence_next_node('forward', 'first_match', at, CAST(k AS VARCHAR), k < 4, k = 1, k >= 2)",
            "sequence_next_node('backward', 'tail', at, CAST(k AS VARCHAR), true, k >= 1)",
        ] {
            AggregateCase::new(call).agrees_however_it_is_run();
        }
    }

    fn next(direction: &str, base: &str, events: &[(&str, u64)], length: usize) -> Option<String> {
        let wanted = Wanted::read(direction, base, length).unwrap();
        let event = |(i, (name, conditions)): (usize, &(&str, u64))| Event {
            at: i as i64,
            name: (*name).into(),
            conditions: *conditions,
        };
        let events: Vec<Event> = events.iter().enumerate().map(event).collect();
        wanted.next(&events).map(str::to_owned)
    }

    /// ClickHouse, documentation of sequenceNextNode: A, B, C, D, E; what follows A, B, C, and the behaviour of each base.
    #[test]
    fn the_examples_of_clickhouse() {
        let way = [("A", 0b0011), ("B", 0b0100), ("C", 0b1000), ("D", 0), ("E", 0)];
        assert_eq!(next("forward", "head", &way, 3).as_deref(), Some("D"));
        // Base Home, then Gift, on three customers: Home Gift Exit; Home Home Gift Basket; Gift Home Gift Basket.
        let (home, gift) = (0b011, 0b100);
        let first = [("Home", home), ("Gift", gift), ("Exit", 0)];
        let second = [("Home", home), ("Home", home), ("Gift", gift), ("Basket", 0)];
        let third = [("Gift", gift), ("Home", home), ("Gift", gift), ("Basket", 0)];
        let head = |events: &[(&str, u64)]| next("forward", "head", events, 2);
        assert_eq!(
            (head(&first).as_deref(), head(&second), head(&third)),
            (Some("Exit"), None, None)
        );
        // Backward from the tail: base Basket, then Gift.
        let (basket, gift) = (0b011, 0b100);
        let tail = |events: &[(&str, u64)]| next("backward", "tail", events, 2);
        assert_eq!(tail(&[("Home", 0), ("Gift", gift), ("Exit", 0)]), None);
        assert_eq!(
            tail(&[("Home", 0), ("Home", 0), ("Gift", gift), ("Basket", basket)]).as_deref(),
            Some("Home")
        );
        assert_eq!(
            tail(&[("Gift", gift), ("Home", 0), ("Gift", gift), ("Basket", basket)]).as_deref(),
            Some("Home")
        );
        // First and last match: base Gift alone.
        let gift = 0b011;
        let third = [("Gift", gift), ("Home", 0), ("Gift", gift), ("Basket", 0)];
        assert_eq!(next("forward", "first_match", &third, 1).as_deref(), Some("Home"));
        assert_eq!(next("forward", "last_match", &third, 1).as_deref(), Some("Basket"));
        assert_eq!(next("backward", "last_match", &third, 1).as_deref(), Some("Home"));
        assert_eq!(next("backward", "first_match", &third, 1), None);
    }

    #[test]
    fn a_base_belongs_to_its_direction() {
        for (direction, base) in [("forward", "tail"), ("backward", "head"), ("up", "head")] {
            assert!(Wanted::read(direction, base, 1).is_err());
        }
    }
}
