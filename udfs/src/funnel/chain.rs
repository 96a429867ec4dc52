//! The funnel algorithm: a plain function of a sorted slice.

/// One customer's event that satisfies the condition of `step`. Times and windows share one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touch {
    /// When it happened, in the unit of the window.
    pub(crate) at: i64,
    /// Which step it satisfies, from 1.
    pub(crate) step: u32,
}

/// How two consecutive steps may lie in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// A later step may share the instant of the one before it: events at one instant count in step order.
    Ascending,
    /// Each step is later than the one before it (`strict_increase`).
    StrictlyIncreasing,
}

/// The deepest chain of a customer: `times[i]` is the instant of step `i + 1`.
pub(crate) type Chain = Vec<i64>;

/// The chain that first reaches the deepest step in order within `window` of its step 1.
///
/// `touches` are sorted. Empty when step 1 never happened. Of the chains that reach a step, the one that started
/// last is carried on, because it leaves the most window for the steps after it; of those with one start, the one
/// that got there first. One pass, O(touches x steps) for the copies of times.
pub(crate) fn best_chain(touches: &[Touch], steps: usize, window: i64, order: Order) -> Chain {
    let mut carried: Vec<Chain> = vec![Chain::new(); steps + 1]; // by step; [0] is unused
    let mut best = Chain::new();
    for instant in touches.chunk_by(|a, b| a.at == b.at) {
        match order {
            Order::Ascending => {
                for touch in instant {
                    extend(&mut carried, touch, window, &mut best);
                }
            }
            // From the last step down, so that no step builds on another of its own instant.
            Order::StrictlyIncreasing => {
                for touch in instant.iter().rev() {
                    extend(&mut carried, touch, window, &mut best);
                }
            }
        }
    }
    best
}

fn extend(carried: &mut [Chain], touch: &Touch, window: i64, best: &mut Chain) {
    let step = touch.step as usize;
    let (before, from_here) = carried.split_at_mut(step);
    let here = &mut from_here[0];
    let started_at = if step == 1 {
        touch.at
    } else {
        match before[step - 1].first() {
            Some(&start) if touch.at.saturating_sub(start) <= window => start,
            _ => return,
        }
    };
    if here.first().is_some_and(|&start| start >= started_at) {
        return;
    }
    here.clear();
    if step > 1 {
        here.extend_from_slice(&before[step - 1]);
    }
    here.push(touch.at);
    if step > best.len() {
        best.clone_from(here);
    }
}

/// Deepest step that [`best_chain`] reaches, without remembering the way. One pass, O(touches).
pub(crate) fn deepest_step(touches: &[Touch], steps: usize, window: i64, order: Order) -> u32 {
    let mut started_at: Vec<Option<i64>> = vec![None; steps + 1];
    let mut deepest = 0;
    let mut reach = |touch: &Touch| {
        let step = touch.step as usize;
        let start = if step == 1 { Some(touch.at) } else { started_at[step - 1] };
        if start.is_some_and(|start| touch.at.saturating_sub(start) <= window) {
            started_at[step] = started_at[step].max(start);
            deepest = deepest.max(touch.step);
        }
    };
    match order {
        Order::Ascending => touches.iter().for_each(&mut reach),
        Order::StrictlyIncreasing => {
            for instant in touches.chunk_by(|a, b| a.at == b.at) {
                instant.iter().rev().for_each(&mut reach);
            }
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by exhaustive search: some chain of touches, in order, all within the window of its first.
    fn slow_depth(touches: &[Touch], steps: usize, window: i64, order: Order) -> u32 {
        fn follow(
            touches: &[Touch],
            step: u32,
            steps: u32,
            at: i64,
            end: i64,
            order: Order,
        ) -> u32 {
            if step > steps {
                return steps;
            }
            let mut deepest = step - 1;
            for next in touches.iter().filter(|t| t.step == step && t.at <= end) {
                let in_order = match order {
                    Order::Ascending => next.at >= at,
                    Order::StrictlyIncreasing => next.at > at,
                };
                if in_order {
                    deepest = deepest.max(follow(touches, step + 1, steps, next.at, end, order));
                }
            }
            deepest
        }
        let starts = touches.iter().filter(|t| t.step == 1);
        starts
            .map(|start| follow(touches, 2, steps as u32, start.at, start.at + window, order))
            .max()
            .unwrap_or(0)
    }

    fn touches() -> impl Strategy<Value = Vec<Touch>> {
        prop::collection::vec((0i64..8, 1u32..=4), 0..10).prop_map(|pairs| {
            let mut touches: Vec<Touch> =
                pairs.into_iter().map(|(at, step)| Touch { at, step }).collect();
            touches.sort_unstable();
            touches
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn agrees_with_exhaustive_search(touches in touches(), window in 0i64..7, strict: bool) {
            let order = if strict { Order::StrictlyIncreasing } else { Order::Ascending };
            let slow = slow_depth(&touches, 4, window, order);
            prop_assert_eq!(deepest_step(&touches, 4, window, order), slow);
            let chain = best_chain(&touches, 4, window, order);
            prop_assert_eq!(chain.len() as u32, slow);
            let in_order = |w: &[i64]| w[0] < w[1] || (!strict && w[0] == w[1]);
            prop_assert!(chain.windows(2).all(in_order));
            if let (Some(first), Some(last)) = (chain.first(), chain.last()) {
                prop_assert!(last - first <= window);
            }
            for (i, at) in chain.iter().enumerate() {
                let step = Touch { at: *at, step: i as u32 + 1 };
                prop_assert!(touches.contains(&step), "the chain invents a step");
            }
        }
    }

    fn sorted(pairs: &[(i64, u32)]) -> Vec<Touch> {
        let mut touches: Vec<Touch> = pairs.iter().map(|&(at, step)| Touch { at, step }).collect();
        touches.sort_unstable();
        touches
    }

    /// ClickHouse issue 93789: a second step 1 at the instant of step 2 must not overwrite the start.
    #[test]
    fn strict_increase_survives_a_restart_at_the_instant_of_step_two() {
        let touches = sorted(&[(1000, 1), (2000, 1), (2000, 2), (3000, 3)]);
        assert_eq!(deepest_step(&touches, 3, 10_000, Order::StrictlyIncreasing), 3);
    }

    /// StarRocks issue 12516: every condition true on five days is five steps, not one.
    #[test]
    fn all_true_conditions_on_five_days_reach_step_five() {
        let all: Vec<(i64, u32)> = (1..=5).flat_map(|day| (1..=5).map(move |s| (day, s))).collect();
        assert_eq!(deepest_step(&sorted(&all), 5, 10, Order::StrictlyIncreasing), 5);
    }

    /// The window includes its last instant (window 2 over three consecutive seconds gives 3).
    #[test]
    fn window_includes_its_last_instant() {
        let touches = sorted(&[(0, 1), (1, 2), (2, 3)]);
        assert_eq!(deepest_step(&touches, 3, 2, Order::Ascending), 3);
        assert_eq!(deepest_step(&touches, 3, 1, Order::Ascending), 2);
    }

    /// The way is the one that reached the end first, from its latest start.
    #[test]
    fn the_first_finish_from_the_latest_start_wins() {
        let touches = sorted(&[(0, 1), (2, 1), (3, 2), (5, 2), (6, 3), (7, 3)]);
        assert_eq!(best_chain(&touches, 3, 10, Order::Ascending), vec![2, 3, 6]);
    }
}
