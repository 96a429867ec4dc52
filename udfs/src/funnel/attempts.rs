//! The attempts of one customer at a funnel, one after the other: a plain function of a sorted slice.
//!
//! An attempt begins with the first row of step 1 after the attempt before. It ends with its last step, or when the window after
//! its beginning is over and its best chain, too. Its chain is the best of those that begin in it: the deepest, of these the one
//! that came there first, of these the one with most optional steps, of these the one that began last. So every chain begins
//! in an attempt that got as far, and the best attempt is the best chain of all.
//!
//! A row that excludes strikes out an attempt whose best chain stands between the steps that it is said of; the attempt counts all
//! the same when another chain in it came as far by as many steps.

mod any_order;
mod pass;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::pass::Pass;
use super::chain::{Rules, Touch};
use super::modes::Modes;

/// What an attempt is, beside the [`Rules`] of its chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttemptRules {
    pub(crate) chain: Rules,
    /// By step, from step 1: whether a chain may leave it out. The first may not.
    pub(crate) optional: Vec<bool>,
    /// By step, from step 1: how long after it the next step that is taken may be.
    pub(crate) gaps: Vec<Option<i64>>,
    /// The steps between which a row excludes, those of the first such condition, of the second, ...
    pub(crate) exclusions: Vec<(u32, u32)>,
    /// Whether the steps may come in any order; then a level is how many of them came, and neither optional steps nor gaps are there.
    pub(crate) is_any_order: bool,
}

/// An attempt that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Its deepest step; with steps in any order, how many came.
    pub(crate) level: u32,
    /// By step, up to its deepest: when and by which row it was taken; `None` for an optional step that was left out.
    pub(crate) steps: Vec<Option<(i64, u32)>>,
}

impl Attempt {
    /// When its steps were taken.
    pub(crate) fn instants(&self) -> Vec<i64> {
        self.steps.iter().flatten().map(|(at, _)| *at).collect()
    }

    /// How many steps it took.
    fn taken(&self) -> usize {
        self.steps.iter().flatten().count()
    }

    /// When it took its deepest step.
    fn end(&self) -> i64 {
        self.steps.iter().rev().flatten().next().map_or(i64::MIN, |(at, _)| *at)
    }
}

/// A row, with the conditions that hold on it, in order; conditions after the steps are those that exclude.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) at: i64,
    pub(super) conditions: &'a [u32],
    pub(super) number: u32,
}

/// A customer's touches as rows, in order of time and, within an instant, of their conditions.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    conditions: Vec<u32>,
    /// When, from where to where its conditions lie, and its number.
    rows: Vec<(i64, u32, u32, u32)>,
}

impl Timeline {
    /// Reads touches that are in order. A row is one unit where it may be one step only; elsewhere each of its steps is.
    pub(crate) fn read(&mut self, touches: &[Touch], rules: &AttemptRules) {
        self.conditions.clear();
        self.rows.clear();
        let is_once = rules.chain.modes.has(Modes::ONCE) || rules.is_any_order;
        for instant in touches.chunk_by(|a, b| a.at == b.at) {
            if instant.len() == 1 || !is_once {
                for touch in instant {
                    self.add(touch.at, touch.row, std::iter::once(touch.step));
                }
                continue;
            }
            let mut by_row: Vec<Touch> = instant.to_vec();
            by_row.sort_unstable_by_key(|touch| (touch.row, touch.step));
            let before = self.rows.len();
            for row in by_row.chunk_by(|a, b| a.row == b.row) {
                self.add(row[0].at, row[0].row, row.iter().map(|touch| touch.step));
            }
            let conditions = &self.conditions;
            let of = |row: &(i64, u32, u32, u32)| &conditions[row.1 as usize..row.2 as usize];
            self.rows[before..].sort_by(|a, b| of(a).cmp(of(b)));
        }
    }

    fn add(&mut self, at: i64, number: u32, conditions: impl Iterator<Item = u32>) {
        let from = self.conditions.len() as u32;
        self.conditions.extend(conditions);
        self.rows.push((at, from, self.conditions.len() as u32, number));
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, place: usize) -> Row<'_> {
        let (at, from, to, number) = self.rows[place];
        Row { at, conditions: &self.conditions[from as usize..to as usize], number }
    }

    fn at(&self, place: usize) -> i64 {
        self.rows[place].0
    }

    /// The places of all rows.
    pub(crate) fn places(&self) -> Range<usize> {
        0..self.rows.len()
    }

    /// The number of a row.
    pub(crate) fn number(&self, place: usize) -> u32 {
        self.rows[place].3
    }

    /// The first row of step 1, or of any step in any order.
    pub(crate) fn first(&self, rules: &AttemptRules) -> Option<u32> {
        self.places().map(|i| self.row(i)).find(|row| rules.begins(row)).map(|row| row.number)
    }

    /// The last row of any step.
    pub(crate) fn last(&self, rules: &AttemptRules) -> Option<u32> {
        let mut rows = self.places().rev().map(|i| self.row(i));
        rows.find(|row| rules.is_step(row)).map(|row| row.number)
    }
}

impl AttemptRules {
    fn begins(&self, row: &Row<'_>) -> bool {
        if self.is_any_order { self.is_step(row) } else { row.conditions[0] == 1 }
    }

    fn is_step(&self, row: &Row<'_>) -> bool {
        (1..=self.chain.steps as u32).contains(&row.conditions[0])
    }

    /// The conditions of a row that exclude, as places in [`Self::exclusions`].
    fn excluding<'a>(&self, row: &Row<'a>) -> impl Iterator<Item = usize> + use<'a> {
        let steps = self.chain.steps;
        let from = row.conditions.partition_point(|c| *c as usize <= steps);
        row.conditions[from..].iter().map(move |c| *c as usize - steps - 1)
    }

    /// The deepest step that a chain which has come to `level` may take next.
    fn furthest(&self, level: usize) -> usize {
        let last = self.chain.steps;
        let after = self.optional[level.min(last)..].iter().take_while(|is_optional| **is_optional);
        (level + 1 + after.count()).min(last)
    }
}

/// Finds attempts; kept from one customer to the next for its memory.
pub(crate) struct Finder<'a> {
    rules: &'a AttemptRules,
    pass: Pass<'a>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(rules: &'a AttemptRules) -> Self {
        Self { rules, pass: Pass::new(rules) }
    }

    /// All attempts that count, one after the other; chains begin at the places of `begins` only.
    pub(crate) fn all(&mut self, timeline: &Timeline, begins: Range<usize>) -> Vec<Attempt> {
        let mut found = Vec::new();
        let mut from = begins.start;
        while let Some((attempt, over)) = self.next(timeline, from..begins.end) {
            found.extend(attempt);
            from = over;
        }
        found
    }

    /// The best attempt: the deepest, of these the first.
    pub(crate) fn best(&mut self, timeline: &Timeline, begins: Range<usize>) -> Option<Attempt> {
        let mut best: Option<Attempt> = None;
        let mut from = begins.start;
        while let Some((attempt, over)) = self.next(timeline, from..begins.end) {
            if let Some(attempt) = attempt
                && best.as_ref().is_none_or(|best| attempt.level > best.level)
            {
                let is_complete = attempt.level as usize == self.rules.chain.steps;
                best = Some(attempt);
                if is_complete {
                    break;
                }
            }
            from = over;
        }
        best
    }

    /// The next attempt, unless a row excludes it, and the place where it is over; `None` when none begins there.
    fn next(
        &mut self,
        timeline: &Timeline,
        begins: Range<usize>,
    ) -> Option<(Option<Attempt>, usize)> {
        let rules = self.rules;
        let first = begins.clone().find(|i| rules.begins(&timeline.row(*i)))?;
        let window_over = timeline.at(first).saturating_add(rules.chain.window);
        let mut limit = window_over;
        let (attempt, last) = loop {
            let (attempt, last) = match rules.is_any_order {
                true => any_order::best(timeline, first..begins.end, limit, rules)?,
                false => self.pass.best(timeline, first..begins.end, limit)?,
            };
            let is_complete = attempt.level as usize == rules.chain.steps;
            let reach = window_over.max(attempt.end());
            if is_complete || reach <= limit {
                break (attempt, last);
            }
            limit = reach;
        };
        let over = if attempt.level as usize == rules.chain.steps {
            last + 1
        } else {
            (last..timeline.len()).find(|i| timeline.at(*i) > limit).unwrap_or(timeline.len())
        };
        if rules.exclusions.is_empty() {
            return Some((Some(attempt), over));
        }
        let clean = match rules.is_any_order {
            true => (!any_order::is_struck_out(timeline, &attempt, over, rules)).then_some(attempt),
            false => self
                .pass
                .clean(timeline, first..begins.end, limit, over)
                .filter(|clean| (clean.level, clean.taken()) == (attempt.level, attempt.taken())),
        };
        Some((clean, over))
    }
}
