//! Who gets the credit for a customer's conversions: a plain function of a sorted slice.
//!
//! Credit is counted in whole parts of [`UNIT`], so that sums are exact and do not depend on their order; what division leaves goes
//! to the last touch. Conversions are looked at in order, and the touches they look back at slide with them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::events::{Deal, Event};
use crate::names::NO_NAME;

#[cfg(test)]
mod tests;

/// One conversion, or one of money, in the parts that credit is counted in.
pub(crate) const UNIT: i128 = 1_000_000_000_000;

/// Parts in a millionth, the unit of a deal's value.
const PARTS: i128 = 1_000_000;

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
    /// Touches before this that led to nothing are no journeys.
    pub(crate) since: i64,
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

/// Divides the credit for one customer's conversions; `events` are sorted, `is_direct` tells direct channels, `in_order` the order of
/// channels in which weights are added: no sum depends on how channels were numbered.
///
/// One pass over the touches, and their channels once for each conversion.
pub(crate) fn divide<'a>(
    events: &[Event],
    deals: impl Iterator<Item = (i64, &'a Deal)>,
    rules: &CreditRules,
    is_direct: impl Fn(u32) -> bool,
    in_order: impl Fn(&u32, &u32) -> Ordering,
) -> Pieces {
    let touches: Vec<Event> = events.iter().filter(|e| e.name != NO_NAME).copied().collect();
    let mut pieces = Pieces::new();
    let mut window = Window::new(&touches, rules, is_direct, in_order);
    let mut journeys = Journeys::new(&touches, rules.order);
    let tells = rules.models.contains(&Model::Markov);
    // Touches before this one have led to a conversion or are told of; those from `free` on have not.
    let mut free = 0;
    for conversion in conversions(deals, rules.is_keyed) {
        let end = touches.partition_point(|touch| touch.at <= conversion.at);
        let after = conversion.at.saturating_sub(rules.lookback);
        let begin = touches.partition_point(|touch| touch.at <= after).min(end);
        if tells {
            journeys.lose(free..begin, rules);
        }
        free = free.max(end);
        if conversion.is_asked {
            window.go_to(begin..end);
            window.give(&conversion, &mut pieces);
            if tells && begin < end {
                journeys.tell(begin..end, Piece::Converted);
            }
        }
    }
    if tells {
        journeys.lose(free..touches.len(), rules);
        journeys.settle(&mut pieces);
    }
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

/// The touches that a conversion looks back at, by channel.
struct Window<'a> {
    rules: &'a CreditRules,
    touches: &'a [Event],
    range: Range<usize>,
    /// The customer's channels.
    names: Vec<u32>,
    /// By touch, the place of its channel.
    channels: Vec<usize>,
    /// By touch, the last touch up to it that is not direct.
    not_direct: Vec<Option<usize>>,
    /// By channel, how many touches there are.
    counts: Vec<u64>,
    /// By channel, the weight of its touches as it was at an instant.
    decayed: Vec<(f64, i64)>,
}

impl<'a> Window<'a> {
    fn new(
        touches: &'a [Event],
        rules: &'a CreditRules,
        is_direct: impl Fn(u32) -> bool,
        in_order: impl Fn(&u32, &u32) -> Ordering,
    ) -> Self {
        let met: BTreeSet<u32> = touches.iter().map(|touch| touch.name).collect();
        let mut names: Vec<u32> = met.into_iter().collect();
        names.sort_by(in_order);
        let places: BTreeMap<u32, usize> =
            names.iter().enumerate().map(|(place, name)| (*name, place)).collect();
        let channels = touches.iter().map(|touch| places[&touch.name]).collect();
        let mut last = None;
        let not_direct = touches.iter().enumerate().map(|(i, touch)| {
            if !is_direct(touch.name) {
                last = Some(i);
            }
            last
        });
        let not_direct = not_direct.collect();
        let (counts, decayed) = (vec![0; names.len()], vec![(0.0, 0); names.len()]);
        let range = 0..0;
        Self { rules, touches, range, names, channels, not_direct, counts, decayed }
    }

    /// Goes on to later touches.
    fn go_to(&mut self, range: Range<usize>) {
        for i in self.range.end..range.end {
            let (at, channel) = (self.touches[i].at, self.channels[i]);
            self.counts[channel] += 1;
            self.decayed[channel] = (self.weight_at(channel, at) + 1.0, at);
        }
        for i in self.range.start..range.start {
            let (at, channel) = (self.touches[i].at, self.channels[i]);
            self.counts[channel] -= 1;
            // The oldest touch weighs least, so that nothing is lost of the others.
            let left = self.decayed[channel].0 - self.fading(at, self.decayed[channel].1);
            self.decayed[channel].0 = if self.counts[channel] == 0 { 0.0 } else { left };
        }
        self.range = range;
    }

    /// What is left at a later instant of a weight of 1.
    fn fading(&self, from: i64, to: i64) -> f64 {
        (-(to.saturating_sub(from) as f64) / self.rules.half_life as f64).exp2()
    }

    fn weight_at(&self, channel: usize, at: i64) -> f64 {
        let (weight, from) = self.decayed[channel];
        weight * self.fading(from, at)
    }

    /// Divides the credit for one conversion among the touches.
    fn give(&self, conversion: &Conversion, pieces: &mut Pieces) {
        let whole = Credit { conversions: UNIT, value: conversion.value };
        let models = &self.rules.models;
        if self.range.is_empty() {
            for &model in models {
                *pieces.entry(Piece::Channel(model, NO_NAME)).or_default() += whole;
            }
            return;
        }
        *pieces.entry(Piece::Touched).or_default() += whole;
        let (first, last) = (self.range.start, self.range.end - 1);
        let at_last = self.touches[last].at;
        for &model in models {
            let mut add = |channel: usize, credit: Credit| {
                *pieces.entry(Piece::Channel(model, self.names[channel])).or_default() += credit;
            };
            let mut share = |weight: &dyn Fn(usize) -> f64| {
                let met = (0..self.names.len()).filter(|channel| self.counts[*channel] > 0);
                let weights: Vec<(usize, f64)> = met.map(|c| (c, weight(c))).collect();
                divided(whole, &weights, self.channels[last]).for_each(|(c, part)| add(c, part));
            };
            match model {
                Model::First => add(self.channels[first], whole),
                Model::Last => add(self.channels[last], whole),
                Model::LastNonDirect => {
                    let other = self.not_direct[last].filter(|other| *other >= first);
                    add(self.channels[other.unwrap_or(last)], whole);
                }
                Model::Linear => share(&|channel| self.counts[channel] as f64),
                // Of every order in which the channels may have joined, a conversion needs all of its own: each has as great a part.
                Model::Shapley => share(&|_| 1.0),
                Model::Participation => {
                    let met = (0..self.names.len()).filter(|channel| self.counts[*channel] > 0);
                    met.for_each(|channel| add(channel, whole));
                }
                // By the time before the last touch, so that its weight is 1 however old all are.
                Model::TimeDecay => share(&|channel| self.weight_at(channel, at_last)),
                Model::Position => share(&|channel| self.by_place(channel, [0.4, 0.2, 0.4])),
                Model::Custom => share(&|channel| self.by_place(channel, self.rules.weights)),
                Model::Markov => {}
            }
        }
    }

    /// The weight of a channel by the places of its touches: the first, those between together, the last. Without any between, or when
    /// all that are there weigh nothing, the others share as they weigh, or equally.
    fn by_place(&self, channel: usize, [first, between, last]: [f64; 3]) -> f64 {
        let touches = self.range.len() as u64;
        let ends = if touches < 3 { first + last } else { first + between + last };
        if touches == 1 || ends <= 0.0 {
            return self.counts[channel] as f64;
        }
        let is_first = self.channels[self.range.start] == channel;
        let is_last = self.channels[self.range.end - 1] == channel;
        let middle = self.counts[channel] - u64::from(is_first) - u64::from(is_last);
        let middle = if touches < 3 { 0.0 } else { middle as f64 / (touches - 2) as f64 * between };
        middle + if is_first { first } else { 0.0 } + if is_last { last } else { 0.0 }
    }
}

/// The credit in parts as great as their weights; what division leaves goes to the channel `last`.
fn divided(
    whole: Credit,
    weights: &[(usize, f64)],
    last: usize,
) -> impl Iterator<Item = (usize, Credit)> {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let part = |weight: f64| {
        let conversions = ((weight / total) * UNIT as f64).floor() as i128;
        let (units, rest) = (whole.value / UNIT, whole.value % UNIT);
        Credit { conversions, value: units * conversions + rest * conversions / UNIT }
    };
    let parts: Vec<(usize, Credit)> =
        weights.iter().map(|(channel, weight)| (*channel, part(*weight))).collect();
    let mut given = Credit::default();
    parts.iter().for_each(|(_, part)| given += *part);
    let left = Credit {
        conversions: whole.conversions - given.conversions,
        value: whole.value - given.value,
    };
    parts.into_iter().chain([(last, left)])
}

/// How often journeys went which way.
struct Journeys<'a> {
    touches: &'a [Event],
    order: usize,
    /// How many more journeys than at the touch before have a touch whose whole memory is theirs.
    more: Vec<i64>,
    pieces: Pieces,
}

impl<'a> Journeys<'a> {
    fn new(touches: &'a [Event], order: usize) -> Self {
        Self { touches, order, more: vec![0; touches.len() + 1], pieces: Pieces::new() }
    }

    fn names(&self, range: Range<usize>) -> Vec<u32> {
        self.touches[range].iter().map(|touch| touch.name).collect()
    }

    fn add(&mut self, piece: Piece, times: i64) {
        let conversions = UNIT * i128::from(times);
        *self.pieces.entry(piece).or_default() += Credit { conversions, value: 0 };
    }

    /// A journey over some touches, to its end. Only its first steps, which remember less, are looked at now.
    fn tell(&mut self, range: Range<usize>, end: fn(Vec<u32>) -> Piece) {
        let whole = (range.start + self.order).min(range.end);
        for i in range.start..whole {
            let step = Piece::Step(self.names(range.start..i), self.touches[i].name);
            self.add(step, 1);
        }
        self.more[whole] += 1;
        self.more[range.end] -= 1;
        let remembered = range.end.saturating_sub(self.order).max(range.start);
        let end = end(self.names(remembered..range.end));
        self.add(end, 1);
    }

    /// Tells of touches that led to nothing; a pause of a lookback begins another journey.
    fn lose(&mut self, range: Range<usize>, rules: &CreditRules) {
        let before = self.touches.partition_point(|touch| touch.at < rules.since);
        let begin = range.start.max(before);
        let mut from = begin;
        for i in begin..range.end {
            let next = self.touches.get(i + 1).filter(|_| i + 1 < range.end);
            let goes_on =
                |next: &Event| next.at.saturating_sub(self.touches[i].at) < rules.lookback;
            if !next.is_some_and(goes_on) {
                self.tell(from..i + 1, Piece::Lost);
                from = i + 1;
            }
        }
    }

    /// The steps that remember all they may, and everything that was told.
    fn settle(mut self, pieces: &mut Pieces) {
        let mut times = 0;
        for i in 0..self.touches.len() {
            times += self.more[i];
            if times > 0 {
                let step = Piece::Step(self.names(i - self.order..i), self.touches[i].name);
                self.add(step, times);
            }
        }
        pieces.append(&mut self.pieces);
    }
}
