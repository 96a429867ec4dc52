//! Doris's `window_funnel`, which is `window_funnel_v2` since 4.1 (be/src/exprs/aggregate/aggregate_function_window_funnel_v2.h, 2026).
//!
//! A row is one step of a chain at most. Doris tries every first step for itself; here all of them go on together, and of those that have
//! come to a step the latest is carried on. Rows of one instant, which it takes as they came in, are in the order of their steps.

use super::super::chain::{Rules, Touch};
use super::super::modes::Modes;
use super::super::rows::Rows;

/// The level of a customer; `touches` are in order of time and step.
pub(super) fn deepest_step(touches: &[Touch], rules: &Rules) -> u32 {
    let mut pass = Pass { rules, began: vec![None; rules.steps + 1], deepest: 0 };
    let mut rows = Rows::default();
    // Where steps have to be later than those before them, the last time of each step, and the first steps of this instant.
    let mut last = vec![i64::MIN; rules.steps + 1];
    for instant in touches.chunk_by(|a, b| a.at == b.at) {
        let at = instant[0].at;
        rows.read(instant);
        if rules.modes.has(Modes::INCREASE) {
            pass.take_later(&rows.steps, at, &mut last);
        } else {
            rows.steps.iter().for_each(|steps| pass.take(steps, at));
        }
    }
    pass.deepest as u32
}

struct Pass<'a> {
    rules: &'a Rules,
    /// By step, when the latest chain began that has come to it.
    began: Vec<Option<i64>>,
    deepest: usize,
}

impl Pass<'_> {
    fn is_in_time(&self, began: i64, at: i64) -> bool {
        at.saturating_sub(began) <= self.rules.window
    }

    fn reach(&mut self, step: usize, began: i64) {
        self.began[step] = self.began[step].max(Some(began));
        self.deepest = self.deepest.max(step);
    }

    /// One row, `steps` in order.
    fn take(&mut self, steps: &[u32], at: i64) {
        let modes = self.rules.modes;
        let is_step = |step: usize| steps.binary_search(&(step as u32)).is_ok();
        let is_fixed = modes.has(Modes::FIXED);
        // From the deepest step down, so that no chain takes two steps by one row.
        for level in (1..self.rules.steps).rev() {
            let Some(began) = self.began[level] else { continue };
            let next = level + 1;
            if is_step(next) {
                if self.is_in_time(began, at) {
                    self.reach(next, began);
                }
                if is_fixed || modes.has(Modes::DEDUPLICATION) {
                    self.began[level] = None;
                }
            } else if is_fixed || modes.has(Modes::DEDUPLICATION) && (steps[0] as usize) < next {
                self.began[level] = None;
            }
        }
        if is_step(1) {
            self.reach(1, at);
        }
    }

    /// The rows of an instant, where a step has to be later than the one before it. Doris remembers one time for each step, the last
    /// one, and so forgets those that would still do.
    fn take_later(&mut self, rows: &[Vec<u32>], at: i64, last: &mut [i64]) {
        let mut has_first = false;
        for steps in rows {
            for &step in steps.iter().rev() {
                let step = step as usize;
                if step == 1 {
                    has_first = true;
                    continue;
                }
                let Some(began) = self.began[step - 1].filter(|began| self.is_in_time(*began, at))
                else {
                    continue;
                };
                if step == 2 || last[step - 1] < at {
                    self.reach(step, began);
                    last[step] = at;
                }
            }
        }
        // A chain goes on at later instants only.
        if has_first {
            self.reach(1, at);
        }
    }
}
