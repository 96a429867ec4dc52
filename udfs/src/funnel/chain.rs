//! The funnel algorithm: a plain function of a sorted slice.
//!
//! A chain is a first step and later ones, in order, within the window of the first. What may lie between its steps is said by
//! the [`Modes`]; of all chains that they allow, the deepest one counts. Rows of one instant are in the order of their steps,
//! those that are no step first.
//!
//! Of the chains that have come to a step, the one that began last is carried on: it leaves the most window, and in
//! everything else the others are no better. So a pass over the rows finds the deepest, whatever the mode.

mod matching;
#[cfg(test)]
mod tests;

use self::matching::Matching;
use super::modes::Modes;
use super::rows::Rows;

/// One customer's event that satisfies the condition of `step`. Times and windows share one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touch {
    /// When it happened, in the unit of the window.
    pub(crate) at: i64,
    /// Which step it satisfies, from 1; 0 for a row that satisfies none, which matters to [`Modes::ORDER`] alone.
    pub(crate) step: u32,
    /// Number of its row among the customer's.
    pub(crate) row: u32,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How many steps there are.
    pub(crate) steps: usize,
    /// How long after its first step a chain may take another, that instant included.
    pub(crate) window: i64,
    /// What ends a chain.
    pub(crate) modes: Modes,
}

/// Deepest step of a chain, 0 without a first step; `touches` are sorted.
///
/// One pass, O(touches) where modes are plain, O(touches x steps) where they are not.
pub(crate) fn deepest_step(touches: &[Touch], rules: &Rules) -> u32 {
    if rules.modes.are_plain() {
        return deepest_of_plain(touches, rules);
    }
    walk(touches, rules, &mut Depth).map_or(0, |(depth, _)| depth)
}

/// The instants of the steps of the chain that came to the deepest step first; of several, the one that began last.
/// `touches` are sorted.
pub(crate) fn best_chain(touches: &[Touch], rules: &Rules) -> Vec<i64> {
    let mut way = Way::default();
    let best = walk(touches, rules, &mut way);
    best.map_or_else(Vec::new, |(_, end)| way.instants(end))
}

/// The deepest step where only the times of steps matter, without anything that other modes need.
fn deepest_of_plain(touches: &[Touch], rules: &Rules) -> u32 {
    let mut began: Vec<Option<i64>> = vec![None; rules.steps + 1];
    let mut deepest = 0;
    let mut reach = |touch: &Touch| {
        let step = touch.step as usize;
        let start = if step == 1 { Some(touch.at) } else { began[step - 1] };
        if start.is_some_and(|start| touch.at.saturating_sub(start) <= rules.window) {
            began[step] = began[step].max(start);
            deepest = deepest.max(touch.step);
        }
    };
    if rules.modes.has(Modes::INCREASE) {
        // From the last step down, so that no step builds on another of its own instant.
        for instant in touches.chunk_by(|a, b| a.at == b.at) {
            instant.iter().rev().for_each(&mut reach);
        }
    } else {
        touches.iter().for_each(&mut reach);
    }
    deepest
}

/// What is remembered of a chain's way.
trait Trace {
    /// The way to a step.
    type To: Copy;

    fn first(&mut self, at: i64) -> Self::To;

    fn next(&mut self, from: Self::To, at: i64) -> Self::To;
}

/// Nothing.
struct Depth;

impl Trace for Depth {
    type To = ();

    fn first(&mut self, _: i64) {}

    fn next(&mut self, (): (), _: i64) {}
}

/// The instants of all steps, each with the place of the one before it.
#[derive(Default)]
struct Way(Vec<(Option<u32>, i64)>);

impl Way {
    fn push(&mut self, from: Option<u32>, at: i64) -> u32 {
        self.0.push((from, at));
        (self.0.len() - 1) as u32
    }

    fn instants(&self, end: u32) -> Vec<i64> {
        let before = |place: &u32| self.0[*place as usize].0;
        let mut instants: Vec<i64> = std::iter::successors(Some(end), before)
            .map(|place| self.0[place as usize].1)
            .collect();
        instants.reverse();
        instants
    }
}

impl Trace for Way {
    type To = u32;

    fn first(&mut self, at: i64) -> u32 {
        self.push(None, at)
    }

    fn next(&mut self, from: u32, at: i64) -> u32 {
        self.push(Some(from), at)
    }
}

/// A chain that has come to some step.
#[derive(Debug, Clone, Copy)]
struct Carried<T> {
    began: i64,
    to: T,
}

/// Chains by the step that they have come to; the first place is nobody's.
struct Chains<T> {
    /// Those that took their last step before the instant that is looked at.
    settled: Vec<Option<Carried<T>>>,
    /// Those that took it at this instant, where the next one has to be later.
    fresh: Vec<Option<Carried<T>>>,
    /// No chain is at a deeper step.
    top: usize,
    /// The deepest step so far and the way to it.
    best: Option<(u32, T)>,
}

impl<T: Copy> Chains<T> {
    fn new(steps: usize) -> Self {
        let none = || vec![None; steps + 1];
        Self { settled: none(), fresh: none(), top: 0, best: None }
    }

    /// A chain has come to `step`: it is kept unless another one that is there began as late.
    fn come(&mut self, step: usize, chain: Carried<T>, is_fresh: bool) {
        let there = if is_fresh { &mut self.fresh[step] } else { &mut self.settled[step] };
        if there.is_some_and(|there| there.began >= chain.began) {
            return;
        }
        *there = Some(chain);
        self.top = self.top.max(step);
        if self.best.is_none_or(|(deepest, _)| (deepest as usize) < step) {
            self.best = Some((step as u32, chain.to));
        }
    }

    /// The instant is over.
    fn settle(&mut self) {
        for step in 1..=self.top {
            if let Some(chain) = self.fresh[step].take() {
                self.come(step, chain, false);
            }
        }
    }
}

/// The deepest step that a chain comes to, and its way.
fn walk<W: Trace>(touches: &[Touch], rules: &Rules, way: &mut W) -> Option<(u32, W::To)> {
    let modes = rules.modes;
    let (is_later, is_once) = (modes.has(Modes::INCREASE), modes.has(Modes::ONCE));
    let mut chains = Chains::new(rules.steps);
    let mut rows = Rows::default();
    for instant in touches.chunk_by(|a, b| a.at == b.at) {
        let at = instant[0].at;
        if is_once && !is_later && !modes.interrupt() {
            rows.read(instant);
            take_once(&mut chains, &mut rows, at, rules, way);
        } else if is_once && modes.interrupt() {
            rows.read(instant);
            rows.steps.iter().for_each(|steps| take(&mut chains, steps, at, rules, way));
        } else {
            // A row that may be several steps, or that is one of an instant, needs not be known.
            let each = instant.iter().map(|touch| std::slice::from_ref(&touch.step));
            each.for_each(|step| take(&mut chains, step, at, rules, way));
        }
        if is_later {
            chains.settle();
        }
    }
    chains.best
}

/// What a row does to all chains; `steps` are those whose conditions it satisfies, in order, or 0.
fn take<W: Trace>(chains: &mut Chains<W::To>, steps: &[u32], at: i64, rules: &Rules, way: &mut W) {
    let modes = rules.modes;
    let is_later = modes.has(Modes::INCREASE);
    let is_step = |step: usize| steps.binary_search(&(step as u32)).is_ok();
    let ends = |level: usize| modes.ends(steps, level as u32, level as u32 + 1);
    // From the deepest step down, so that no chain takes two steps by one row.
    for level in (1..=chains.top).rev() {
        let is_next = level < rules.steps && is_step(level + 1);
        if let Some(chain) = chains.settled[level] {
            let is_in_time = at.saturating_sub(chain.began) <= rules.window;
            if is_next && is_in_time {
                let to = way.next(chain.to, at);
                chains.come(level + 1, Carried { to, ..chain }, is_later);
            }
            if is_next && modes.has(Modes::DEDUPLICATION) || !is_next && ends(level) || !is_in_time
            {
                chains.settled[level] = None;
            }
        }
        // One that took its last step at this instant cannot take this one, but may be ended by it.
        if !is_next && ends(level) {
            chains.fresh[level] = None;
        }
    }
    if is_step(1) {
        let to = way.first(at);
        chains.come(1, Carried { began: at, to }, is_later);
    }
}

/// What all rows of an instant do to all chains, when a row may be one step only and none ends a chain.
fn take_once<W: Trace>(
    chains: &mut Chains<W::To>,
    rows: &mut Rows,
    at: i64,
    rules: &Rules,
    way: &mut W,
) {
    if let [steps] = rows.steps.as_slice() {
        return take(chains, steps, at, rules, way);
    }
    rows.drop_needless(rules.steps);
    let before = chains.settled[..=chains.top].to_vec();
    let mut matching = Matching::new(&rows.steps, rules.steps);
    for (level, chain) in before.into_iter().enumerate() {
        let deepest = matching.deepest_from(level);
        let mut to = match (level, chain) {
            (0, _) => None,
            (_, Some(chain)) if at.saturating_sub(chain.began) <= rules.window => Some(chain),
            _ => continue,
        };
        for step in level + 1..=deepest {
            let chain = match to {
                Some(chain) => Carried { to: way.next(chain.to, at), ..chain },
                None => Carried { began: at, to: way.first(at) },
            };
            chains.come(step, chain, false);
            to = Some(chain);
        }
    }
}
