//! StarRocks's `window_funnel`, as its evaluation reads (be/src/exprs/agg/window_funnel.h, 2026).
//!
//! One pass, and for each step the chain that came to it last, as in ClickHouse: mode 4 can lose a chain by that. In modes 1 and 2 what
//! ends a chain forgets it and the pass goes on, so the answer is the best of all. With mode 4 beside 1 or 2 the second step needs
//! not be later than the first, for its time is not noted there.

use super::super::chain::{Rules, Touch};
use super::super::modes::Modes;

/// The level of a customer; `touches` are in order of time and step.
pub(super) fn deepest_step(touches: &[Touch], rules: &Rules) -> u32 {
    let modes = rules.modes;
    let is_killed = modes.has(Modes::DEDUPLICATION.and(Modes::FIXED));
    let (mut began, mut last) = (vec![None; rules.steps + 1], vec![None; rules.steps + 1]);
    let (mut deepest, mut level, mut has_begun) = (0, 0, false);
    for &Touch { at, step, .. } in touches {
        let step = step as usize;
        if step == 1 {
            began[1] = Some(at);
            if !is_killed {
                last[1] = Some(at);
            }
            (level, has_begun) = (level.max(1), true);
            continue;
        }
        let is_repeated = modes.has(Modes::DEDUPLICATION) && began[step].is_some();
        let is_early = modes.has(Modes::FIXED) && has_begun && began[step - 1].is_none();
        if is_repeated || is_early {
            began[..=level].fill(None);
            (deepest, level) = (deepest.max(level), 0);
            continue;
        }
        let Some(start) = began[step - 1] else { continue };
        let is_later = !modes.has(Modes::INCREASE) || last[step - 1].is_none_or(|last| last < at);
        if is_later && at.saturating_sub(start) <= rules.window {
            (began[step], last[step]) = (Some(start), Some(at));
            level = level.max(step);
        }
    }
    deepest.max(level) as u32
}
