//! Who gets the credit for a customer's conversions: a plain function of a sorted slice.
//!
//! Credit is counted in whole parts of [`UNIT`], so that sums are exact and do not depend on their order; what division leaves goes
//! to the last touch.

use std::collections::{BTreeMap, BTreeSet};

use super::events::{Deal, Event};
use crate::names::NO_NAME;

#[cfg(test)]
mod tests;

/// One conversion, or one of money, in the parts that credit is counted in.
pub(crate) const UNIT: i128 = 1_000_000_000_000;

/// Parts in a millionth, the unit of a deal's value.
const PARTS: i128 = 1_000_000;

/// A journey has so many touches at most; of a longer one the last ones count (and the first one, for the first touch).
pub(crate) const TOUCHES_MAX: usize = 1000;

/// What a deal is; any other is a conversion that is not asked about, whose touches have led to something all the same.
pub(crate) const CONVERSION: i8 = 1;
pub(crate) const REFUND: i8 = 2;

/// Ways to divide credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Model {
    First,
    Last,
    LastNonDirect,
    Linear,
    TimeDecay,
    Position,
    Participation,
    Shapley,
    Markov,
    Custom,
}

/// Every model by its number, with its name.
pub(crate) const MODELS: [(Model, &str); 10] = [
    (Model::First, "first"),
    (Model::Last, "last"),
    (Model::LastNonDirect, "last_non_direct"),
    (Model::Linear, "linear"),
    (Model::TimeDecay, "time_decay"),
    (Model::Position, "position"),
    (Model::Participation, "participation"),
    (Model::Shapley, "shapley"),
    (Model::Markov, "markov"),
    (Model::Custom, "custom"),
];

/// How credit is divided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CreditRules {
    pub(crate) models: Vec<Model>,
    /// A touch counts from `conversion - lookback`, that instant excluded, to the conversion.
    pub(crate) lookback: i64,
    /// The weight of a touch halves with this age.
    pub(crate) half_life: i64,
    /// Weights of the first touch, of those between together, and of the last, for [`Model::Custom`].
    pub(crate) weights: [f64; 3],
    /// How many touches a state of [`Model::Markov`] remembers.
    pub(crate) order: usize,
    /// Whether deals of one key are one conversion.
    pub(crate) is_keyed: bool,
}

/// What some touches are credited with, in parts of [`UNIT`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) conversions: i128,
    pub(crate) value: i128,
}

impl std::ops::AddAssign for Credit {
    fn add_assign(&mut self, other: Self) {
        self.conversions += other.conversions;
        self.value += other.value;
    }
}

/// A piece of the answer about a customer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Piece {
    /// What a channel gets; [`NO_NAME`] for conversions without a touch.
    Channel(Model, u32),
    /// A step of a journey: from the touches that are remembered to the next one.
    Step(Vec<u32>, u32),
    /// The end of a journey with a conversion.
    Converted(Vec<u32>),
    /// The end of a journey without one.
    Lost(Vec<u32>),
    /// All conversions with a touch.
    Touched,
}

/// Credit by piece.
pub(crate) type Pieces = BTreeMap<Piece, Credit>;

/// A conversion that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Conversion {
    at: i64,
    /// In parts of [`UNIT`].
    value: i128,
    is_asked: bool,
}

/// Divides the credit for one customer's conversions; `events` are sorted, `is_direct` tells direct channels.
pub(crate) fn divide<'a>(
    events: &[Event],
    deals: impl Iterator<Item = (i64, &'a Deal)>,
    rules: &CreditRules,
    is_direct: impl Fn(u32) -> bool,
) -> Pieces {
    let touches: Vec<Event> = events.iter().filter(|e| e.name != NO_NAME).copied().collect();
    let mut pieces = Pieces::new();
    // Touches before this one have led to a conversion or are told of; those from `free` on have not.
    let mut free = 0;
    for conversion in conversions(deals, rules.is_keyed) {
        let end = touches.partition_point(|touch| touch.at <= conversion.at);
        let after = conversion.at.saturating_sub(rules.lookback);
        let begin = touches.partition_point(|touch| touch.at <= after).min(end);
        lose(&touches[free.min(begin)..begin], rules, &mut pieces);
        free = free.max(end);
        if conversion.is_asked {
            give(&touches[begin..end], &conversion, rules, &is_direct, &mut pieces);
        }
    }
    lose(&touches[free..], rules, &mut pieces);
    pieces
}

/// Conversions in order of time, those of one key as one, less what was refunded of it.
fn conversions<'a>(
    deals: impl Iterator<Item = (i64, &'a Deal)>,
    is_keyed: bool,
) -> Vec<Conversion> {
    let mut alone = Vec::new();
    let mut orders: BTreeMap<&str, (Option<Conversion>, i128)> = BTreeMap::new();
    for (at, deal) in deals {
        let conversion =
            Conversion { at, value: deal.value * PARTS, is_asked: deal.kind == CONVERSION };
        match (&deal.key, deal.kind) {
            (Some(key), kind) if is_keyed => {
                let (order, refunded) = orders.entry(key).or_default();
                match (order, kind) {
                    (_, REFUND) => *refunded += deal.value.abs() * PARTS,
                    // The order is of the day of its first row.
                    (Some(order), _) => order.value += conversion.value,
                    (order, _) => *order = Some(conversion),
                }
            }
            (_, REFUND) => {}
            _ => alone.push(conversion),
        }
    }
    for (order, refunded) in orders.into_values() {
        let Some(order) = order else { continue };
        if refunded == 0 || order.value > refunded {
            alone.push(Conversion { value: order.value - refunded, ..order });
        }
    }
    alone.sort_by_key(|conversion| (conversion.at, conversion.value, conversion.is_asked));
    alone
}

/// Divides the credit for one conversion among its touches.
fn give(
    touches: &[Event],
    conversion: &Conversion,
    rules: &CreditRules,
    is_direct: &impl Fn(u32) -> bool,
    pieces: &mut Pieces,
) {
    let whole = Credit { conversions: UNIT, value: conversion.value };
    let Some(first) = touches.first() else {
        for &model in &rules.models {
            *pieces.entry(Piece::Channel(model, NO_NAME)).or_default() += whole;
        }
        return;
    };
    *pieces.entry(Piece::Touched).or_default() += whole;
    let touches = &touches[touches.len().saturating_sub(TOUCHES_MAX)..];
    let last = touches.len() - 1;
    let channels = || touches.iter().map(|touch| touch.name);
    let distinct = || channels().collect::<BTreeSet<u32>>().into_iter();
    for &model in &rules.models {
        let mut add = |channel: u32, credit: Credit| {
            *pieces.entry(Piece::Channel(model, channel)).or_default() += credit;
        };
        let mut share = |weights: &mut dyn Iterator<Item = (u32, f64)>| {
            let weights: Vec<(u32, f64)> = weights.collect();
            let channels = weights.iter().map(|(channel, _)| *channel);
            let parts = divided(whole, weights.iter().map(|(_, weight)| *weight));
            channels.zip(parts).for_each(|(channel, part)| add(channel, part));
        };
        match model {
            Model::First => add(first.name, whole),
            Model::Last => add(touches[last].name, whole),
            Model::LastNonDirect => {
                let other = channels().rev().find(|channel| !is_direct(*channel));
                add(other.unwrap_or(touches[last].name), whole);
            }
            Model::Linear => share(&mut channels().map(|channel| (channel, 1.0))),
            // Of every order in which the channels may have joined, a conversion needs all of its own: each has as great a part.
            Model::Shapley => share(&mut distinct().map(|channel| (channel, 1.0))),
            Model::Participation => distinct().for_each(|channel| add(channel, whole)),
            // By the time before the last touch, so that its weight is 1 however old all are.
            Model::TimeDecay => share(&mut touches.iter().map(|touch| {
                let before = touches[last].at.saturating_sub(touch.at) as f64;
                (touch.name, (-before / rules.half_life as f64).exp2())
            })),
            Model::Position => share(&mut by_place(touches, [0.4, 0.2, 0.4])),
            Model::Custom => share(&mut by_place(touches, rules.weights)),
            Model::Markov => tell(touches, rules, Piece::Converted, pieces),
        }
    }
}

/// Weights of the first touch, of those between, and of the last; without any between, or when all that are there weigh nothing, the
/// others share as they weigh, or equally.
fn by_place(touches: &[Event], weights: [f64; 3]) -> impl Iterator<Item = (u32, f64)> {
    let [first, between, last] = weights;
    let count = touches.len();
    let ends = if count < 3 { first + last } else { first + between + last };
    touches.iter().enumerate().map(move |(i, touch)| {
        let weight = match i {
            _ if count == 1 || ends <= 0.0 => 1.0,
            0 => first,
            _ if i + 1 == count => last,
            _ => between / (count - 2) as f64,
        };
        (touch.name, weight)
    })
}

/// The credit in parts as great as their weights; what is left goes to the last part that weighs something.
fn divided(whole: Credit, weights: impl Iterator<Item = f64> + Clone) -> Vec<Credit> {
    let total: f64 = weights.clone().sum();
    let part = |weight: f64| {
        let conversions = ((weight / total) * UNIT as f64).floor() as i128;
        let (units, rest) = (whole.value / UNIT, whole.value % UNIT);
        Credit { conversions, value: units * conversions + rest * conversions / UNIT }
    };
    let mut parts: Vec<Credit> = weights.clone().map(part).collect();
    let mut given = Credit::default();
    parts.iter().for_each(|part| given += *part);
    let heavy = weights.collect::<Vec<f64>>().iter().rposition(|weight| *weight > 0.0);
    if let Some(last) = heavy {
        parts[last] += Credit {
            conversions: whole.conversions - given.conversions,
            value: whole.value - given.value,
        };
    }
    parts
}

/// Tells of touches that led to nothing; a pause of a lookback begins another journey.
fn lose(touches: &[Event], rules: &CreditRules, pieces: &mut Pieces) {
    if rules.models.contains(&Model::Markov) {
        let journeys = touches.chunk_by(|a, b| b.at.saturating_sub(a.at) < rules.lookback);
        journeys.for_each(|journey| tell(journey, rules, Piece::Lost, pieces));
    }
}

/// The steps of a journey, from a start to its end.
fn tell(touches: &[Event], rules: &CreditRules, end: fn(Vec<u32>) -> Piece, pieces: &mut Pieces) {
    let touches = &touches[touches.len().saturating_sub(TOUCHES_MAX)..];
    let remembered = |until: usize| {
        let from = until.saturating_sub(rules.order);
        touches[from..until].iter().map(|touch| touch.name).collect::<Vec<u32>>()
    };
    let once = Credit { conversions: UNIT, value: 0 };
    for (i, touch) in touches.iter().enumerate() {
        *pieces.entry(Piece::Step(remembered(i), touch.name)).or_default() += once;
    }
    *pieces.entry(end(remembered(touches.len()))).or_default() += once;
}
