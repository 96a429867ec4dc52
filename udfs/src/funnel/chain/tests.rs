use proptest::prelude::*;

use super::*;

/// Whether `chosen`, one row a step, is a chain: the definition, of rows in order.
fn is_chain(units: &[(i64, Vec<u32>)], chosen: &[usize], rules: &Rules) -> bool {
    let modes = rules.modes;
    let at = |unit: usize| units[unit].0;
    let (first, last) = (chosen[0], chosen[chosen.len() - 1]);
    let is_late = |pair: &[usize]| modes.has(Modes::INCREASE) && at(pair[0]) == at(pair[1]);
    if at(last) - at(first) > rules.window || chosen.windows(2).any(is_late) {
        return false;
    }
    (first..last).filter(|unit| !chosen.contains(unit)).all(|unit| {
        let steps = &units[unit].1;
        let level = chosen.iter().filter(|chosen| **chosen < unit).count() as u32;
        if steps.contains(&(level + 1)) {
            // It could be the next step: then it has to be, where repeating it later would end the chain.
            let before = chosen[level as usize - 1];
            let could_be = !(modes.has(Modes::INCREASE) && at(before) == at(unit));
            return !(modes.has(Modes::DEDUPLICATION) && could_be);
        }
        let repeats = steps.iter().any(|step| *step >= 2 && *step <= level);
        let is_early = steps[0] > level + 1 && !modes.has(Modes::REENTRY);
        let is_strict = modes.has(Modes::ORDER) || modes.has(Modes::FIXED);
        !(modes.has(Modes::DEDUPLICATION) && repeats
            || modes.has(Modes::ORDER) && steps[0] == 0
            || is_strict && is_early)
    })
}

/// The deepest step by trying every choice of rows. Modes that end chains see rows in order; others see a row of an instant as
/// any of them.
fn slow_depth(touches: &[Touch], rules: &Rules) -> usize {
    let is_once = rules.modes.has(Modes::ONCE);
    let mut units: Vec<(i64, Vec<u32>, u32)> = if is_once {
        let mut by_row: Vec<Touch> = touches.to_vec();
        by_row.sort_unstable_by_key(|t| (t.at, t.row, t.step));
        by_row
            .chunk_by(|a, b| (a.at, a.row) == (b.at, b.row))
            .map(|row| (row[0].at, row.iter().map(|t| t.step).collect(), row[0].row))
            .collect()
    } else {
        touches.iter().map(|t| (t.at, vec![t.step], t.row)).collect()
    };
    units.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let units: Vec<(i64, Vec<u32>)> = units.into_iter().map(|(at, steps, _)| (at, steps)).collect();
    let any_order = is_once && !rules.modes.interrupt();
    fn try_all(
        units: &[(i64, Vec<u32>)],
        chosen: &mut Vec<usize>,
        any_order: bool,
        rules: &Rules,
    ) -> usize {
        let mut deepest = match chosen.as_slice() {
            [] => 0,
            chosen if any_order => {
                let at = |unit: usize| units[unit].0;
                let is_late = |pair: &[usize]| match rules.modes.has(Modes::INCREASE) {
                    true => at(pair[1]) <= at(pair[0]),
                    false => at(pair[1]) < at(pair[0]),
                };
                let span = at(chosen[chosen.len() - 1]) - at(chosen[0]);
                match span > rules.window || chosen.windows(2).any(is_late) {
                    true => return 0,
                    false => chosen.len(),
                }
            }
            chosen => chosen.len() * usize::from(is_chain(units, chosen, rules)),
        };
        let next = chosen.len() as u32 + 1;
        for unit in 0..units.len() {
            let is_after = any_order || chosen.last().is_none_or(|last| unit > *last);
            if is_after && units[unit].1.contains(&next) && !chosen.contains(&unit) {
                chosen.push(unit);
                deepest = deepest.max(try_all(units, chosen, any_order, rules));
                chosen.pop();
            }
        }
        deepest
    }
    try_all(&units, &mut Vec::new(), any_order, rules)
}

const STEPS: usize = 4;

/// Rows at few instants, each with the conditions that it satisfies, as touches in order.
fn touches() -> impl Strategy<Value = Vec<Touch>> {
    let row = (0i64..7, prop::collection::btree_set(1u32..=STEPS as u32, 0..=2));
    prop::collection::vec(row, 0..8).prop_map(|rows| {
        let mut touches = Vec::new();
        for (row, (at, steps)) in rows.into_iter().enumerate() {
            let row = row as u32;
            if steps.is_empty() {
                touches.push(Touch { at, step: 0, row });
            }
            touches.extend(steps.into_iter().map(|step| Touch { at, step, row }));
        }
        touches.sort_unstable();
        touches
    })
}

/// Rows that are no step are known in one mode only.
fn of_modes(mut touches: Vec<Touch>, modes: Modes) -> Vec<Touch> {
    if !modes.has(Modes::ORDER) {
        touches.retain(|touch| touch.step > 0);
    }
    touches
}

fn modes_of(bits: u8) -> Modes {
    let all = [
        Modes::DEDUPLICATION,
        Modes::FIXED,
        Modes::INCREASE,
        Modes::ORDER,
        Modes::ONCE,
        Modes::REENTRY,
    ];
    let among = all.into_iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    among.fold(Modes::default(), |modes, (_, mode)| modes.and(mode))
}

fn agree(touches: Vec<Touch>, window: i64, modes: Modes) -> Result<(), TestCaseError> {
    let touches = of_modes(touches, modes);
    let rules = Rules { steps: STEPS, window, modes };
    let slow = slow_depth(&touches, &rules);
    prop_assert_eq!(deepest_step(&touches, &rules) as usize, slow, "{:?} {:?}", rules, touches);
    let chain = best_chain(&touches, &rules);
    prop_assert_eq!(chain.len(), slow);
    let is_later = modes.has(Modes::INCREASE);
    prop_assert!(chain.windows(2).all(|w| w[0] < w[1] || (!is_later && w[0] == w[1])));
    if let (Some(first), Some(last)) = (chain.first(), chain.last()) {
        prop_assert!(last - first <= window);
    }
    for (i, at) in chain.iter().enumerate() {
        let is_it = |touch: &Touch| touch.at == *at && touch.step == i as u32 + 1;
        prop_assert!(touches.iter().any(is_it), "the chain invents a step");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn default_is_the_optimum(touches in touches(), window in 0i64..7) {
        agree(touches, window, Modes::default())?;
    }

    #[test]
    fn strict_deduplication_is_the_optimum(touches in touches(), window in 0i64..7) {
        agree(touches, window, Modes::DEDUPLICATION)?;
    }

    #[test]
    fn fixed_is_the_optimum(touches in touches(), window in 0i64..7) {
        agree(touches, window, Modes::FIXED)?;
    }

    #[test]
    fn strict_increase_is_the_optimum(touches in touches(), window in 0i64..7) {
        agree(touches, window, Modes::INCREASE)?;
    }

    #[test]
    fn strict_order_is_the_optimum(touches in touches(), window in 0i64..7) {
        agree(touches, window, Modes::ORDER)?;
    }

    #[test]
    fn strict_once_is_the_optimum(touches in touches(), window in 0i64..7) {
        agree(touches, window, Modes::ONCE)?;
    }

    #[test]
    fn strict_order_with_allow_reentry_is_the_optimum(touches in touches(), window in 0i64..7) {
        agree(touches, window, Modes::ORDER.and(Modes::REENTRY))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    /// All 64 combinations.
    #[test]
    fn modes_together_are_the_optimum(touches in touches(), window in 0i64..7, bits in 0u8..64) {
        agree(touches, window, modes_of(bits))?;
    }
}

fn sorted(rows: &[(i64, &[u32])]) -> Vec<Touch> {
    let mut touches = Vec::new();
    for (row, (at, steps)) in rows.iter().enumerate() {
        touches.extend(steps.iter().map(|step| Touch { at: *at, step: *step, row: row as u32 }));
    }
    touches.sort_unstable();
    touches
}

fn depth(rows: &[(i64, &[u32])], steps: usize, window: i64, mode: &str) -> u32 {
    let modes = Modes::of_names(mode).unwrap();
    deepest_step(&of_modes(sorted(rows), modes), &Rules { steps, window, modes })
}

/// ClickHouse issue 93789: a second step 1 at the instant of step 2 must not overwrite the start.
#[test]
fn strict_increase_survives_a_restart_at_the_instant_of_step_two() {
    let rows: [(i64, &[u32]); 4] = [(1000, &[1]), (2000, &[1]), (2000, &[2]), (3000, &[3])];
    assert_eq!(depth(&rows, 3, 10_000, "strict_increase"), 3);
}

/// StarRocks issue 12516: every condition true on five days is five steps, not one.
#[test]
fn all_true_conditions_on_five_days_reach_step_five() {
    let all: [u32; 5] = [1, 2, 3, 4, 5];
    let rows: Vec<(i64, &[u32])> = (1..=5).map(|day| (day, &all[..])).collect();
    assert_eq!(depth(&rows, 5, 10, "strict_increase"), 5);
    assert_eq!(depth(&rows, 5, 10, "strict_once"), 5);
    assert_eq!(depth(&rows[..1], 5, 10, "strict_once"), 1);
}

/// The window includes its last instant (window 2 over three consecutive seconds gives 3).
#[test]
fn window_includes_its_last_instant() {
    let rows: [(i64, &[u32]); 3] = [(0, &[1]), (1, &[2]), (2, &[3])];
    assert_eq!(depth(&rows, 3, 2, "default"), 3);
    assert_eq!(depth(&rows, 3, 1, "default"), 2);
}

/// The way is the one that reached the end first, from its latest start.
#[test]
fn the_first_finish_from_the_latest_start_wins() {
    let rows: [(i64, &[u32]); 6] =
        [(0, &[1]), (2, &[1]), (3, &[2]), (5, &[2]), (6, &[3]), (7, &[3])];
    for modes in [Modes::default(), Modes::FIXED, Modes::ONCE, Modes::INCREASE] {
        let rules = Rules { steps: 3, window: 10, modes };
        assert_eq!(best_chain(&sorted(&rows), &rules), vec![2, 3, 6]);
    }
}

/// Research "behaviour" 1: what ends a chain in which mode.
#[test]
fn modes_differ_as_their_names_say() {
    let unlisted: [(i64, &[u32]); 4] = [(1, &[1]), (2, &[0]), (3, &[2]), (4, &[3])];
    assert_eq!(depth(&unlisted, 3, 9, "strict_order"), 1);
    assert_eq!(depth(&unlisted, 3, 9, "strict_order,allow_reentry"), 1);
    assert_eq!(depth(&unlisted, 3, 9, "fixed"), 3);
    let early: [(i64, &[u32]); 4] = [(1, &[1]), (2, &[3]), (3, &[2]), (4, &[3])];
    assert_eq!(depth(&early, 3, 9, "fixed"), 1);
    assert_eq!(depth(&early, 3, 9, "strict_order,allow_reentry"), 3);
    let doubled: [(i64, &[u32]); 6] =
        [(1, &[1]), (2, &[1]), (3, &[2]), (4, &[2]), (5, &[3]), (6, &[3])];
    assert_eq!(depth(&doubled, 3, 9, "strict_order"), 3);
    assert_eq!(depth(&doubled, 3, 9, "strict_deduplication"), 2);
    assert_eq!(depth(&doubled[..3], 3, 9, "strict_deduplication"), 2);
    // ClickHouse issue 37177: a fresh start counts.
    let again: [(i64, &[u32]); 6] =
        [(1, &[1]), (2, &[2]), (3, &[2]), (4, &[1]), (5, &[2]), (6, &[3])];
    assert_eq!(depth(&again, 3, 9, "strict_deduplication"), 3);
}

/// A user of a million events costs a pass in every mode; ClickHouse's strict_once keeps every path of a few thousand.
#[test]
fn one_user_of_many_events_is_no_trouble() {
    let all: Vec<u32> = (1..=256).collect();
    let alike: Vec<(i64, &[u32])> = (0..2000).map(|n| (n / 500, &all[..])).collect();
    assert_eq!(depth(&alike, 256, 2000, "strict_once"), 256);
    let rows: Vec<(i64, &[u32])> =
        (0..300_000).map(|n| (n / 2, std::slice::from_ref(&all[n as usize % 3]))).collect();
    for bits in 0..64 {
        let modes = modes_of(bits);
        let rules = Rules { steps: 3, window: 1_000_000, modes };
        assert!(deepest_step(&sorted(&rows), &rules) >= 1, "{modes:?}");
    }
}
