//! Each pass beside a slow twin that does what the engine does, one start after the other.

use proptest::prelude::*;

use super::super::chain::{Rules, Touch};
use super::super::modes::Modes;
use super::super::rows::Rows;
use super::{clickhouse, doris, starrocks};

/// Rows of a customer: when, and which conditions hold.
fn rows(steps: u32, span: i64) -> impl Strategy<Value = Vec<(i64, Vec<u32>)>> {
    let conditions = proptest::sample::subsequence((1..=steps).collect::<Vec<_>>(), 0..=2);
    proptest::collection::vec((0..span, conditions), 0..10)
}

fn touches(rows: &[(i64, Vec<u32>)], with_others: bool) -> Vec<Touch> {
    let mut touches = Vec::new();
    for (row, (at, steps)) in rows.iter().enumerate() {
        let row = row as u32;
        touches.extend(steps.iter().map(|step| Touch { at: *at, step: *step, row }));
        if steps.is_empty() && with_others {
            touches.push(Touch { at: *at, step: 0, row });
        }
    }
    touches.sort_unstable();
    touches
}

/// The rows that satisfy a condition, in order of time and of their steps.
fn in_order(touches: &[Touch]) -> Vec<(i64, Vec<u32>)> {
    let mut of_instant = Rows::default();
    let mut rows = Vec::new();
    for instant in touches.chunk_by(|a, b| a.at == b.at) {
        of_instant.read(instant);
        rows.extend(of_instant.steps.drain(..).map(|steps| (instant[0].at, steps)));
    }
    rows
}

/// Every first step for itself.
fn doris_by_starts(rows: &[(i64, Vec<u32>)], rules: &Rules) -> u32 {
    let mut best = 0;
    for (from, (start, steps)) in rows.iter().enumerate() {
        if steps.contains(&1) {
            best = best.max(doris_from(&rows[from + 1..], *start, rules));
        }
    }
    best
}

fn doris_from(rows: &[(i64, Vec<u32>)], start: i64, rules: &Rules) -> u32 {
    let modes = rules.modes;
    let (steps, end) = (rules.steps as u32, start + rules.window);
    let mut level = 1;
    if modes.has(Modes::INCREASE) {
        let mut last = vec![None; rules.steps + 1];
        last[1] = Some(start);
        for (at, of_row) in rows.iter().filter(|(at, _)| *at <= end) {
            for &step in of_row.iter().rev().filter(|step| **step > 1) {
                if last[step as usize - 1].is_some_and(|last| last < *at) {
                    last[step as usize] = Some(*at);
                    level = level.max(step);
                }
            }
        }
        return level;
    }
    let mut gap: Vec<u32> = Vec::new();
    for (at, of_row) in rows {
        if level == steps || *at > end {
            break;
        }
        let is_next = of_row.contains(&(level + 1));
        if modes.has(Modes::FIXED) && !is_next {
            break;
        }
        if is_next {
            if modes.has(Modes::DEDUPLICATION) && gap.iter().any(|step| *step <= level) {
                break;
            }
            level += 1;
            gap.clear();
        } else {
            gap.extend(of_row);
        }
    }
    level
}

/// ClickHouse's strict_once: every chain with the rows it has used.
fn clickhouse_of_paths(touches: &[Touch], rules: &Rules) -> u32 {
    let modes = rules.modes;
    let mut chains: Vec<Vec<(i64, i64, Vec<u32>)>> = vec![Vec::new(); rules.steps + 1];
    let mut deepest = 0;
    for touch in touches {
        let (step, at) = (touch.step as usize, touch.at);
        let has_begun = deepest > 0;
        match step {
            0 if has_begun && modes.has(Modes::ORDER) => return deepest,
            0 => continue,
            1 => chains[1].push((at, at, vec![touch.row])),
            _ if modes.has(Modes::DEDUPLICATION) && !chains[step].is_empty() => return deepest,
            _ if chains[step - 1].is_empty() => {
                if has_begun && modes.has(Modes::ORDER) && !modes.has(Modes::REENTRY) {
                    return deepest;
                }
                continue;
            }
            _ => {
                let fits = |(began, last, path): &&(i64, i64, Vec<u32>)| {
                    at - began <= rules.window
                        && !path.contains(&touch.row)
                        && (!modes.has(Modes::INCREASE) || *last < at)
                };
                let longer = |(began, _, path): &(i64, i64, Vec<u32>)| {
                    (*began, at, path.iter().copied().chain([touch.row]).collect())
                };
                let more: Vec<_> = chains[step - 1].iter().filter(fits).map(longer).collect();
                chains[step].extend(more);
                if chains[step].is_empty() {
                    continue;
                }
            }
        }
        deepest = deepest.max(step as u32);
        if step > 1 && step == rules.steps {
            return deepest;
        }
    }
    deepest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn doris_is_the_best_of_all_first_steps(rows in rows(4, 7), window in 0i64..7, mode in 0usize..4) {
        let modes = [Modes::default(), Modes::DEDUPLICATION, Modes::FIXED, Modes::INCREASE][mode];
        let touches = touches(&rows, false);
        let rules = Rules { steps: 4, window, modes };
        let expected = doris_by_starts(&in_order(&touches), &rules);
        prop_assert_eq!(doris::deepest_step(&touches, &rules), expected, "{:?} {}", modes, window);
    }

    #[test]
    fn clickhouse_uses_no_row_twice(rows in rows(4, 5), window in 0i64..6, modes in 0u8..16) {
        let given = [Modes::DEDUPLICATION, Modes::ORDER, Modes::INCREASE, Modes::REENTRY];
        let has = |at: usize| modes >> at & 1 == 1;
        let modes = (0..4).filter(|at| has(*at)).fold(Modes::ONCE, |all, at| all.and(given[at]));
        let touches = touches(&rows, modes.has(Modes::ORDER));
        let rules = Rules { steps: 4, window, modes };
        let expected = clickhouse_of_paths(&touches, &rules);
        prop_assert_eq!(clickhouse::deepest_step(&touches, &rules), expected, "{}", modes);
    }
}

/// What ClickHouse itself answered, in every set of modes that it takes.
#[test]
fn clickhouse_answers_as_it_did() {
    let mut lines = include_str!("clickhouse.txt").lines().filter(|line| !line.starts_with('#'));
    let heads: Vec<Modes> = lines
        .next()
        .unwrap()
        .trim_start_matches('|')
        .split(' ')
        .map(|modes| Modes::of_names(&modes.replace('+', ",")).unwrap())
        .collect();
    assert_eq!(heads.len(), 24);
    let mut compared = 0;
    for line in lines {
        let (given, levels) = line.split_once('|').unwrap();
        let row = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let step = |c: char| u32::from(c) - u32::from('A') + 1;
            (text[..end].parse().unwrap(), text[end..].chars().map(step).collect())
        };
        let rows: Vec<(i64, Vec<u32>)> = given.split(' ').map(row).collect();
        for (modes, level) in heads.iter().zip(levels.chars()) {
            let rules = Rules { steps: 4, window: 5, modes: *modes };
            let touches = touches(&rows, modes.has(Modes::ORDER));
            let answer = clickhouse::deepest_step(&touches, &rules);
            assert_eq!(Some(answer), level.to_digit(10), "{modes}: {given}");
            compared += 1;
        }
    }
    assert_eq!(compared, 240 * 24);
}

/// The runs that tell the engines apart, with the level that each of them gives.
#[test]
fn engines_differ_where_they_are_known_to() {
    let of = |text: &str| -> Vec<Touch> {
        let step = |c: char| u32::from(c) - u32::from('A') + 1;
        let rows: Vec<(i64, Vec<u32>)> = text
            .split(' ')
            .map(|row| {
                let (steps, at) = row.split_once('@').unwrap();
                (at.parse().unwrap(), steps.chars().filter(|c| *c <= 'H').map(step).collect())
            })
            .collect();
        touches(&rows, true)
    };
    let listed =
        |touches: Vec<Touch>| touches.into_iter().filter(|t| t.step > 0).collect::<Vec<_>>();
    let rules = |steps, window, modes| Rules { steps, window, modes };
    let increase = rules(3, 10_000, Modes::INCREASE);
    // ClickHouse issue 93789: a later first step takes the place of the first one. Doris' case do-wf-incr-overwrite gives 3.
    let overwritten = of("A@1000 A@2000 B@2000 C@3000");
    assert_eq!(clickhouse::deepest_step(&overwritten, &increase), 1);
    assert_eq!(starrocks::deepest_step(&overwritten, &increase), 1);
    assert_eq!(doris::deepest_step(&overwritten, &increase), 3);
    // A second step at the instant of the third (Doris pull 68093).
    let second = of("A@0 B@1 B@2 C@2");
    for peer in [clickhouse::deepest_step, starrocks::deepest_step, doris::deepest_step] {
        assert_eq!(peer(&second, &increase), 2);
    }
    // Modes 5 and 6 of StarRocks: the first step's time is not noted.
    let same = of("A@3 B@3 C@4");
    let with = |mode: Modes| rules(3, 10, mode.and(Modes::INCREASE));
    assert_eq!(starrocks::deepest_step(&same, &with(Modes::default())), 1);
    assert_eq!(starrocks::deepest_step(&same, &with(Modes::DEDUPLICATION)), 3);
    // ABCBD of the documentation of StarRocks, in modes 0 to 7.
    let repeated = of("A@1 B@2 C@3 B@4 D@5");
    let levels: Vec<u32> = (0..8)
        .map(|mode| {
            starrocks::deepest_step(&repeated, &rules(4, 99, Modes::of_number(mode).unwrap()))
        })
        .collect();
    assert_eq!(levels, [4, 3, 4, 3, 4, 3, 4, 3]);
    // ClickHouse issue 37177: the answer is that of the first chain, although a later one would come to the end.
    let fresh = of("A@0 B@5 C@10 A@15 B@20 A@25 B@30 C@35 D@40");
    assert_eq!(clickhouse::deepest_step(&fresh, &rules(4, 60, Modes::DEDUPLICATION)), 3);
    // A repeated first step: Doris stops there, ClickHouse begins anew (example 2 of Doris' page).
    let restarted = of("A@0 B@1 A@2 C@3 D@4");
    assert_eq!(doris::deepest_step(&restarted, &rules(4, 99, Modes::DEDUPLICATION)), 2);
    assert_eq!(clickhouse::deepest_step(&restarted, &rules(4, 99, Modes::DEDUPLICATION)), 4);
    // An event that is no step: strict_order ends, Doris' fixed does not see it.
    let others = of("A@0 X@1 B@2 C@3");
    assert_eq!(clickhouse::deepest_step(&others, &rules(3, 99, Modes::ORDER)), 1);
    assert_eq!(doris::deepest_step(&listed(others), &rules(3, 99, Modes::FIXED)), 3);
    // Doris' unit test: one row with all conditions is one step; two of them are two.
    assert_eq!(doris::deepest_step(&of("ABCD@0"), &rules(4, 9, Modes::default())), 1);
    assert_eq!(doris::deepest_step(&of("A@0 AB@1 C@2"), &rules(3, 9, Modes::FIXED)), 3);
    assert_eq!(doris::deepest_step(&of("A@0 B@1 B@2 C@3"), &rules(3, 9, Modes::FIXED)), 2);
}
