//! One pass over the rows of an attempt, to its best chain.
//!
//! Of the chains that have come to a step, those are carried on that no other one beats: another one that began as late and took its
//! last step as late leaves as much of the window and of the time to the next step. Of those that began together the one that came first goes on,
//! as long as the time to the next step is not over.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Attempt, AttemptRules, Row, Timeline};
use crate::funnel::modes::Modes;

/// A chain that has come to some step.
#[derive(Debug, Clone, Copy)]
struct Carried {
    began: i64,
    last: i64,
    /// Its last step among [`Pass::ways`].
    way: u32,
}

/// A step of a chain, with the one before it.
#[derive(Debug, Clone, Copy)]
struct Way {
    before: Option<u32>,
    step: u32,
    at: i64,
    row: u32,
}

/// How a chain came to a step.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    level: usize,
    optional: usize,
    began: i64,
    at: i64,
    way: u32,
    /// Place of the row.
    place: usize,
}

/// The state of a pass; kept from one to the next for its memory.
pub(super) struct Pass<'a> {
    rules: &'a AttemptRules,
    /// How many optional steps there are, and one.
    width: usize,
    has_gaps: bool,
    /// Chains by the step that they have come to and how many optional steps they took: those that began last first.
    settled: Vec<VecDeque<Carried>>,
    /// Those that took their last step at this instant, where the next one has to be later.
    fresh: Vec<VecDeque<Carried>>,
    /// No chain is at a deeper step.
    top: usize,
    ways: Vec<Way>,
    /// By step, the best chain that came there.
    came: Vec<Option<Arrival>>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(rules: &'a AttemptRules) -> Self {
        let steps = rules.chain.steps;
        let width = rules.optional.iter().filter(|is_optional| **is_optional).count() + 1;
        let none = || vec![VecDeque::new(); (steps + 1) * width];
        Self {
            rules,
            width,
            has_gaps: rules.gaps.iter().any(Option::is_some),
            settled: none(),
            fresh: none(),
            top: 0,
            ways: Vec::new(),
            came: vec![None; steps + 1],
        }
    }

    /// The best chain of those that begin at the places of `begins`, until `limit`, and the place of its last row; nothing excludes.
    pub(super) fn best(
        &mut self,
        timeline: &Timeline,
        begins: Range<usize>,
        limit: i64,
    ) -> Option<(Attempt, usize)> {
        self.go(timeline, begins, limit, timeline.len(), false);
        self.deepest()
    }

    /// The best chain before the place `until` that no row excludes.
    pub(super) fn clean(
        &mut self,
        timeline: &Timeline,
        begins: Range<usize>,
        limit: i64,
        until: usize,
    ) -> Option<Attempt> {
        self.go(timeline, begins, limit, until, true);
        self.deepest().map(|(attempt, _)| attempt)
    }

    fn deepest(&self) -> Option<(Attempt, usize)> {
        let best = self.came.iter().rev().flatten().next()?;
        let mut steps = vec![None; best.level];
        let mut way = Some(best.way);
        while let Some(at) = way {
            let Way { before, step, at, row } = self.ways[at as usize];
            steps[step as usize - 1] = Some((at, row));
            way = before;
        }
        Some((Attempt { level: best.level as u32, steps }, best.place))
    }

    fn go(
        &mut self,
        timeline: &Timeline,
        begins: Range<usize>,
        limit: i64,
        until: usize,
        excludes: bool,
    ) {
        let rules = self.rules;
        self.settled.iter_mut().chain(&mut self.fresh).for_each(VecDeque::clear);
        self.came.fill(None);
        self.ways.clear();
        self.top = 0;
        let modes = rules.chain.modes;
        let reach = limit.saturating_add(rules.chain.window);
        let mut instant = None;
        for place in begins.start..until {
            let row = timeline.row(place);
            // Another row of the instant may complete a chain with more optional steps.
            let is_done = self.came[rules.chain.steps].is_some_and(|done| done.at < row.at);
            if row.at > reach || is_done {
                break;
            }
            if modes.has(Modes::INCREASE) && instant != Some(row.at) {
                self.settle();
            }
            instant = Some(row.at);
            if excludes {
                rules.excluding(&row).for_each(|condition| self.exclude(condition));
            }
            self.take(&row, place);
            if row.at <= limit && row.conditions[0] == 1 && begins.contains(&place) {
                let way = self.way(None, 1, &row);
                self.come(1, 0, Carried { began: row.at, last: row.at, way }, &row, place);
            }
        }
    }

    fn way(&mut self, before: Option<u32>, step: usize, row: &Row<'_>) -> u32 {
        self.ways.push(Way { before, step: step as u32, at: row.at, row: row.number });
        (self.ways.len() - 1) as u32
    }

    /// What a row does to the chains that there are.
    fn take(&mut self, row: &Row<'_>, place: usize) {
        let rules = self.rules;
        let (modes, window) = (rules.chain.modes, rules.chain.window);
        let steps = row.conditions.partition_point(|c| *c as usize <= rules.chain.steps);
        // A row that only excludes is to other rules one that satisfies no condition.
        let steps = if steps == 0 { &[0] } else { &row.conditions[..steps] };
        // From the deepest step down, so that no chain takes two steps by one row.
        for level in (1..=self.top).rev() {
            let furthest = rules.furthest(level);
            let is_next = level < rules.chain.steps
                && steps.iter().any(|s| (level + 1..=furthest).contains(&(*s as usize)));
            let ends = modes.ends(steps, level as u32, furthest as u32);
            let gap = rules.gaps[level - 1].unwrap_or(i64::MAX);
            for optional in 0..self.width {
                let cell = level * self.width + optional;
                let chains = &mut self.settled[cell];
                while chains.back().is_some_and(|c| row.at.saturating_sub(c.began) > window) {
                    chains.pop_back();
                }
                while chains.front().is_some_and(|c| row.at.saturating_sub(c.last) > gap) {
                    chains.pop_front();
                }
                if is_next {
                    for &step in
                        steps.iter().filter(|s| (level + 1..=furthest).contains(&(**s as usize)))
                    {
                        self.advance(cell, step as usize, optional, row, place);
                    }
                }
                if is_next && modes.has(Modes::DEDUPLICATION) || !is_next && ends {
                    self.settled[cell].clear();
                }
                // One that took its last step at this instant cannot take this one, but may be ended by it.
                if !is_next && ends {
                    self.fresh[cell].clear();
                }
            }
        }
    }

    /// The chain of a cell that began last takes `step`; of those the one that came there first.
    fn advance(&mut self, cell: usize, step: usize, optional: usize, row: &Row<'_>, place: usize) {
        let Some(&chain) = self.settled[cell].front() else { return };
        let way = self.way(Some(chain.way), step, row);
        let optional = optional + usize::from(self.rules.optional[step - 1]);
        self.come(step, optional, Carried { last: row.at, way, ..chain }, row, place);
    }

    /// A chain has come to `level`.
    fn come(&mut self, level: usize, optional: usize, chain: Carried, row: &Row<'_>, place: usize) {
        let (began, way) = (chain.began, chain.way);
        let arrival = Arrival { level, optional, began, at: row.at, way, place };
        let came = &mut self.came[level];
        let is_better = |there: &Arrival| {
            there.at == row.at && there.optional < optional
                || there.place == place && there.optional == optional && there.began < began
        };
        if came.as_ref().is_none_or(is_better) {
            *came = Some(arrival);
        }
        self.top = self.top.max(level);
        let cell = level * self.width + optional;
        match self.rules.chain.modes.has(Modes::INCREASE) {
            true => keep(&mut self.fresh[cell], chain, self.has_gaps),
            false => keep(&mut self.settled[cell], chain, self.has_gaps),
        }
    }

    /// The instant is over.
    fn settle(&mut self) {
        for cell in 0..self.fresh.len() {
            while let Some(chain) = self.fresh[cell].pop_front() {
                keep(&mut self.settled[cell], chain, self.has_gaps);
            }
        }
    }

    /// A row excludes chains that stand between two steps.
    fn exclude(&mut self, condition: usize) {
        let (from, to) = self.rules.exclusions[condition];
        for level in from as usize..to as usize {
            self.came[level] = None;
            for optional in 0..self.width {
                self.settled[level * self.width + optional].clear();
                self.fresh[level * self.width + optional].clear();
            }
        }
    }
}

/// Keeps a chain, and not those that it beats; it took its last step as late as any.
fn keep(chains: &mut VecDeque<Carried>, chain: Carried, has_gaps: bool) {
    let beats =
        |there: &Carried| there.began >= chain.began && (!has_gaps || there.last == chain.last);
    if chains.back().is_some_and(beats) {
        return;
    }
    while chains.back().is_some_and(|there| there.began < chain.began) {
        chains.pop_back();
    }
    chains.push_back(chain);
}
