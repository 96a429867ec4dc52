//! Patterns of events: `(?1).*(?t<=3600)(?2)`.
//!
//! A pattern is matched in one pass over the events, whatever it is: for each item the events at which a part of the pattern up to
//! it may have ended are kept, as long as they can still be of use. There is no going back, and no limit of steps.

#[cfg(test)]
mod tests;

/// A pattern, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pattern {
    items: Vec<Item>,
    /// How long all of it may take.
    longest: Option<i64>,
}

/// One event of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    /// Which condition it satisfies, from 1; any event when `None`.
    condition: Option<u32>,
    /// Whether other events may lie between the one before it and it.
    may_skip: bool,
    /// How long after the one before it, at least and at most.
    after: (i64, i64),
}

impl Pattern {
    /// Reads a pattern over so many conditions; `unit` is what a number in it stands for. The error is a sentence about the
    /// pattern.
    pub(super) fn parse(text: &str, conditions: usize, unit: i64) -> Result<Self, String> {
        let mut pattern = Self::default();
        let (mut rest, mut may_skip, mut after) = (text.trim(), false, NO_GATE);
        let mut has_gate = false;
        while !rest.is_empty() {
            if let Some(next) = rest.strip_prefix(".*") {
                (rest, may_skip) = (next, true);
                continue;
            }
            let condition = if let Some(next) = rest.strip_prefix('.') {
                rest = next;
                None
            } else {
                let (inside, next) = group(rest)?;
                rest = next;
                match inside.as_bytes().first() {
                    Some(b't') => {
                        gate(&inside[1..], unit, &mut after)?;
                        (may_skip, has_gate) = (true, true);
                        continue;
                    }
                    Some(b'T') => {
                        let mut whole = NO_GATE;
                        gate(&inside[1..], unit, &mut whole)?;
                        if whole.0 > 0 {
                            return Err(format!(
                                "(?{inside}): the whole may only be limited by < or <="
                            ));
                        }
                        let longest = pattern.longest.unwrap_or(i64::MAX).min(whole.1);
                        pattern.longest = Some(longest);
                        continue;
                    }
                    _ => Some(numbered(inside, conditions)?),
                }
            };
            if pattern.items.is_empty() && has_gate {
                return Err("a time stands before the first event".to_owned());
            }
            pattern.items.push(Item { condition, may_skip, after });
            (may_skip, after, has_gate) = (false, NO_GATE, false);
        }
        if has_gate {
            return Err("a time stands after the last event".to_owned());
        }
        Ok(pattern)
    }

    /// Whether some events match.
    pub(super) fn matches(&self, events: &[Event<'_>]) -> bool {
        self.is_empty() || Matcher::new(self).first(events, 0).is_some()
    }

    /// How many times events match, none of them twice: the most that is possible. Each event matches the empty pattern.
    pub(super) fn count(&self, events: &[Event<'_>]) -> usize {
        if self.is_empty() {
            return events.len();
        }
        let (mut count, mut from) = (0, 0);
        let mut matcher = Matcher::new(self);
        while let Some(end) = matcher.first(events, from) {
            count += 1;
            from = end + 1;
            matcher.clear();
        }
        count
    }

    /// When the events were by which the pattern is matched first, or as much of it as is matched.
    pub(super) fn times(&self, events: &[Event<'_>]) -> Vec<i64> {
        let mut matcher = Matcher::new(self);
        matcher.first(events, 0);
        matcher.times()
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Nothing is said of the time between two events.
const NO_GATE: (i64, i64) = (0, i64::MAX);

/// What stands in `(?...)`, and the rest.
fn group(text: &str) -> Result<(&str, &str), String> {
    let seen = || text.chars().take(12).collect::<String>();
    let Some(inside) = text.strip_prefix("(?") else {
        return Err(format!("at {:?}: (?1), (?t<=60), (?T<=3600), . or .* is needed", seen()));
    };
    let end = inside.find(')').ok_or_else(|| format!("at {:?}: a ) is missing", seen()))?;
    Ok((&inside[..end], &inside[end + 1..]))
}

fn numbered(inside: &str, conditions: usize) -> Result<u32, String> {
    match inside.parse::<u32>() {
        Ok(number) if number >= 1 && number as usize <= conditions => Ok(number),
        Ok(number) => Err(format!("(?{number}): there are {conditions} conditions")),
        Err(_) => Err(format!("(?{inside}): a number of a condition or a time is needed")),
    }
}

/// Narrows the time between two events by one that is written as `<=60`.
fn gate(text: &str, unit: i64, after: &mut (i64, i64)) -> Result<(), String> {
    let wrong = || format!("\"{text}\": a time is written as >=60, >60, <=60, <60 or ==60");
    let number = text.trim_start_matches(['<', '>', '=']);
    let amount = number.trim().parse::<i64>().ok().filter(|amount| *amount >= 0);
    let amount = amount.and_then(|amount| amount.checked_mul(unit)).ok_or_else(wrong)?;
    let (least, most) = match &text[..text.len() - number.len()] {
        ">=" => (amount, i64::MAX),
        ">" => (amount.saturating_add(1), i64::MAX),
        "<=" => (0, amount),
        "<" => (0, amount - 1),
        "==" | "=" => (amount, amount),
        _ => return Err(wrong()),
    };
    *after = (after.0.max(least), after.1.min(most));
    Ok(())
}

/// An event: when it was, and which conditions it satisfies, in order.
pub(super) type Event<'a> = (i64, &'a [u32]);

/// A part of a pattern that has been matched: by the event at a place, and others before it.
#[derive(Debug, Clone, Copy)]
struct Part {
    event: usize,
    at: i64,
    began: i64,
    /// The part before it, among those of the item before.
    before: usize,
}

/// A pattern on its way through events.
struct Matcher<'a> {
    pattern: &'a Pattern,
    /// By item, those that end with it, in the order of events.
    parts: Vec<Vec<Part>>,
}

impl<'a> Matcher<'a> {
    fn new(pattern: &'a Pattern) -> Self {
        Self { pattern, parts: vec![Vec::new(); pattern.items.len()] }
    }

    fn clear(&mut self) {
        self.parts.iter_mut().for_each(Vec::clear);
    }

    /// The place of the event with which the first match ends; `None` when there is none from place `from` on.
    fn first(&mut self, events: &[Event<'_>], from: usize) -> Option<usize> {
        let last = self.pattern.items.len().checked_sub(1)?;
        for (event, (at, conditions)) in events.iter().enumerate().skip(from) {
            // From the last item down, so that an event is one item only.
            for item in (0..=last).rev() {
                let of = &self.pattern.items[item];
                let is_it = of.condition.is_none_or(|number| conditions.contains(&number));
                if !is_it {
                    continue;
                }
                if let Some(part) = self.part(item, event, *at) {
                    if item == last {
                        self.parts[item].push(part);
                        return Some(event);
                    }
                    if self.parts[item].is_empty() || !self.is_first_best(item) {
                        self.parts[item].push(part);
                    }
                }
            }
        }
        None
    }

    /// Whether of the parts that end with an item only the first is of use: anything may lie between it and the next one.
    fn is_first_best(&self, item: usize) -> bool {
        let next = &self.pattern.items[item + 1];
        next.may_skip && next.after == NO_GATE && self.pattern.longest.is_none()
    }

    /// The part that an event is the end of, as item number `item`.
    fn part(&self, item: usize, event: usize, at: i64) -> Option<Part> {
        let Some(before) = item.checked_sub(1) else {
            return Some(Part { event, at, began: at, before: 0 });
        };
        let of = &self.pattern.items[item];
        let parts = &self.parts[before];
        // Parts that end in time; the later one ends, the later it may have begun.
        let earliest = at.saturating_sub(of.after.1);
        let latest = at.saturating_sub(of.after.0);
        let from = parts.partition_point(|part| part.at < earliest);
        let to = parts.partition_point(|part| part.at <= latest);
        let place = match (of.may_skip, self.pattern.longest) {
            (false, _) => parts.len().checked_sub(1).filter(|last| parts[*last].event + 1 == event),
            (true, None) => Some(from),
            (true, Some(_)) => to.checked_sub(1),
        };
        let place = place.filter(|place| (from..to).contains(place))?;
        let began = parts[place].began;
        let is_short =
            self.pattern.longest.is_none_or(|longest| at.saturating_sub(began) <= longest);
        is_short.then_some(Part { event, at, began, before: place })
    }

    /// The times of the first of the longest parts; an event that may be any has none.
    fn times(&self) -> Vec<i64> {
        let Some(deepest) = self.parts.iter().rposition(|parts| !parts.is_empty()) else {
            return Vec::new();
        };
        let (mut times, mut place) = (Vec::new(), 0);
        for item in (0..=deepest).rev() {
            let part = self.parts[item][place];
            if self.pattern.items[item].condition.is_some() {
                times.push(part.at);
            }
            place = part.before;
        }
        times.reverse();
        times
    }
}
