//! ClickHouse's `windowFunnel`, as version 26.9 answers.
//!
//! One pass over all rows, and for each step one chain only: the one that came to it last. So a later first step at the instant
//! of a second one takes the first one's place, and `strict_increase` undercounts (issue 93789). What ends a chain ends
//! the pass, and the answer is the deepest step until then, however a later start would have fared. `strict_once` keeps all
//! chains there; here it keeps, for each step, the one that began last and the rows of this instant.

use super::super::chain::{Rules, Touch};
use super::super::modes::Modes;

/// The level of a customer; `touches` are in order of time and step.
pub(super) fn deepest_step(touches: &[Touch], rules: &Rules) -> u32 {
    let mut pass = Pass::new(rules);
    for instant in touches.chunk_by(|a, b| a.at == b.at) {
        let goes_on = if rules.modes.has(Modes::ONCE) {
            pass.take_rows_once(instant)
        } else {
            instant.iter().all(|touch| pass.take(touch))
        };
        if !goes_on {
            break;
        }
    }
    pass.deepest as u32
}

/// A chain that has come to some step.
#[derive(Debug, Clone, Copy)]
struct Reached {
    began: i64,
    at: i64,
}

struct Pass<'a> {
    rules: &'a Rules,
    /// By step; the first place is nobody's.
    reached: Vec<Option<Reached>>,
    /// Every step up to this one was reached.
    deepest: usize,
}

impl<'a> Pass<'a> {
    fn new(rules: &'a Rules) -> Self {
        Self { rules, reached: vec![None; rules.steps + 1], deepest: 0 }
    }

    /// Whether the pass goes on although there is a row that ends chains, and whether the row is to be looked at.
    fn meet(&self, step: usize) -> Meeting {
        let modes = self.rules.modes;
        let has_begun = self.deepest > 0;
        match step {
            0 if has_begun && modes.has(Modes::ORDER) => Meeting::End,
            0 => Meeting::Pass,
            1 => Meeting::Take,
            // A repeated first step only begins anew.
            _ if modes.has(Modes::DEDUPLICATION) && step <= self.deepest => Meeting::End,
            _ if step - 1 <= self.deepest => Meeting::Take,
            _ if has_begun && modes.has(Modes::ORDER) && !modes.has(Modes::REENTRY) => Meeting::End,
            _ => Meeting::Pass,
        }
    }

    fn reach(&mut self, step: usize, chain: Reached) -> bool {
        self.reached[step] = Some(chain);
        self.deepest = self.deepest.max(step);
        // With the last step there is nothing more to find.
        step == 1 || step < self.rules.steps
    }

    fn is_in_time(&self, chain: &Reached, at: i64) -> bool {
        at.saturating_sub(chain.began) <= self.rules.window
            && (!self.rules.modes.has(Modes::INCREASE) || chain.at < at)
    }

    /// One row as one step; `false` ends the pass.
    fn take(&mut self, touch: &Touch) -> bool {
        let (step, at) = (touch.step as usize, touch.at);
        match self.meet(step) {
            Meeting::End => false,
            Meeting::Pass => true,
            Meeting::Take if step == 1 => self.reach(1, Reached { began: at, at }),
            Meeting::Take => {
                match self.reached[step - 1].filter(|chain| self.is_in_time(chain, at)) {
                    Some(chain) => self.reach(step, Reached { at, ..chain }),
                    None => true,
                }
            }
        }
    }

    /// The rows of an instant, none of which is two steps of a chain; `false` ends the pass.
    fn take_rows_once(&mut self, instant: &[Touch]) -> bool {
        let before = self.reached.clone();
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.rules.steps + 1];
        for touch in instant {
            let (step, at) = (touch.step as usize, touch.at);
            let chain = match self.meet(step) {
                Meeting::End => return false,
                Meeting::Pass => continue,
                Meeting::Take if step == 1 => Some(Reached { began: at, at }),
                Meeting::Take => self.latest_before(&before, &rows, touch),
            };
            rows[step].push(touch.row);
            let Some(chain) = chain else { continue };
            let latest =
                self.reached[step].map_or(chain.began, |there| there.began.max(chain.began));
            if !self.reach(step, Reached { began: latest, at }) {
                return false;
            }
        }
        true
    }

    /// Of the chains that have come to the step before a row's without it, the one that began last.
    fn latest_before(
        &self,
        before: &[Option<Reached>],
        rows: &[Vec<u32>],
        touch: &Touch,
    ) -> Option<Reached> {
        let (step, at) = (touch.step as usize, touch.at);
        let in_time = |chain: &Option<Reached>| chain.filter(|chain| self.is_in_time(chain, at));
        let mut latest = in_time(&before[step - 1]);
        if self.rules.modes.has(Modes::INCREASE) {
            return latest;
        }
        // Chains that took the steps from `first` on at this instant, each by another row.
        for first in (1..step).rev() {
            let of_steps = &rows[first..step];
            if of_steps.iter().any(Vec::is_empty) || !have_rows_of_their_own(of_steps, touch.row) {
                break;
            }
            let chain = match first {
                1 => Some(Reached { began: at, at }),
                _ => in_time(&before[first - 1]),
            };
            latest = [latest, chain].into_iter().flatten().max_by_key(|chain| chain.began);
        }
        latest
    }
}

/// What is done with a row.
enum Meeting {
    Take,
    Pass,
    End,
}

/// Whether each of some steps can have a row that is no other's, nor `taken`.
fn have_rows_of_their_own(of_steps: &[Vec<u32>], taken: u32) -> bool {
    // Of more rows than steps, those that come later change nothing.
    let most = of_steps.len() + 1;
    let mut owners: Vec<(u32, usize)> = Vec::new();
    (0..of_steps.len()).all(|step| {
        let mut tried = vec![taken];
        give_row(of_steps, most, step, &mut owners, &mut tried)
    })
}

/// Gives a step a row, where necessary by giving another step another row.
fn give_row(
    of_steps: &[Vec<u32>],
    most: usize,
    step: usize,
    owners: &mut Vec<(u32, usize)>,
    tried: &mut Vec<u32>,
) -> bool {
    for &row in of_steps[step].iter().take(most) {
        if tried.contains(&row) {
            continue;
        }
        tried.push(row);
        match owners.iter().position(|(owned, _)| *owned == row) {
            None => owners.push((row, step)),
            Some(at) => {
                let other = owners[at].1;
                if !give_row(of_steps, most, other, owners, tried) {
                    continue;
                }
                // The other step has another row now; this one is free.
                if let Some(owner) = owners.iter_mut().find(|(owned, _)| *owned == row) {
                    owner.1 = step;
                }
            }
        }
        return true;
    }
    false
}
