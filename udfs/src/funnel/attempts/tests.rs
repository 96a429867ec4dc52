use proptest::prelude::*;

use super::*;

/// The rows of a customer in the order that the rules say: when, conditions, number.
type Rows = Vec<(i64, Vec<u32>, u32)>;

fn rows_of(touches: &[Touch]) -> Rows {
    let mut by_row: Vec<Touch> = touches.to_vec();
    by_row.sort_unstable_by_key(|t| (t.at, t.row, t.step));
    let mut rows: Rows = by_row
        .chunk_by(|a, b| (a.at, a.row) == (b.at, b.row))
        .map(|row| (row[0].at, row.iter().map(|t| t.step).collect(), row[0].row))
        .collect();
    rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    rows
}

/// A chain: the steps that were taken, each by which row.
type Chain = Vec<(usize, usize)>;

/// Every chain that the definition allows, by trying every choice of rows.
fn all_chains(rows: &Rows, rules: &AttemptRules) -> Vec<Chain> {
    let steps = rules.chain.steps;
    let (mut found, mut begun): (Vec<Chain>, Vec<Chain>) = (Vec::new(), Vec::new());
    for (row, (_, conditions, _)) in rows.iter().enumerate() {
        if conditions.contains(&1) {
            begun.push(vec![(1, row)]);
        }
    }
    while let Some(chain) = begun.pop() {
        let &(level, last) = chain.last().unwrap();
        for row in last + 1..rows.len() {
            for step in level + 1..=steps {
                let leaves_out = (level + 1..step).all(|s| rules.optional[s - 1]);
                let span = rows[row].0 - rows[chain[0].1].0;
                let gap = rows[row].0 - rows[last].0;
                let is_in_time = span <= rules.chain.window
                    && rules.gaps[level - 1].is_none_or(|most| gap <= most);
                let is_allowed =
                    (last + 1..row).all(|between| is_passed(&rows[between].1, level, rules));
                if rows[row].1.contains(&(step as u32)) && leaves_out && is_in_time && is_allowed {
                    let mut next = chain.clone();
                    next.push((step, row));
                    begun.push(next);
                }
            }
        }
        found.push(chain);
    }
    found
}

/// Whether a row may lie in a chain that has come to `level` and does not take it.
fn is_passed(conditions: &[u32], level: usize, rules: &AttemptRules) -> bool {
    let modes = rules.chain.modes;
    let is_strict = modes.has(Modes::ORDER) || modes.has(Modes::FIXED);
    let steps: Vec<usize> = conditions
        .iter()
        .map(|c| *c as usize)
        .filter(|c| (1..=rules.chain.steps).contains(c))
        .collect();
    let could_be = |step: usize| step > level && (level + 1..step).all(|s| rules.optional[s - 1]);
    if steps.iter().any(|step| could_be(*step)) {
        return true;
    }
    match steps.first() {
        None => !modes.has(Modes::ORDER),
        Some(step) => !(is_strict && *step > level),
    }
}

/// Level, chain: of those that begin until `limit`, the deepest, first to come there, with most steps, last to begin.
fn best_of<'a>(chains: impl Iterator<Item = &'a Chain>, rows: &Rows) -> Option<(usize, &'a Chain)> {
    chains.map(|chain| (chain.last().unwrap().0, chain)).max_by_key(|(level, chain)| {
        let place = chain.last().unwrap().1;
        (*level, -rows[place].0, chain.len(), -(place as i64), rows[chain[0].1].0)
    })
}

fn slow_attempts(rows: &Rows, rules: &AttemptRules) -> Vec<(u32, Vec<i64>)> {
    let chains = all_chains(rows, rules);
    let steps = rules.chain.steps;
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(first) = (from..rows.len()).find(|row| rows[*row].1[0] == 1) {
        let over = rows[first].0 + rules.chain.window;
        let mut limit = over;
        let (level, best) = loop {
            let begun = chains
                .iter()
                .filter(|c| c[0].1 >= first && rows[c[0].1].0 <= limit && rows[c[0].1].1[0] == 1);
            let (level, best) = best_of(begun, rows).unwrap();
            let reach = over.max(rows[best.last().unwrap().1].0);
            if level == steps || reach <= limit {
                break (level, best);
            }
            limit = reach;
        };
        from = match level == steps {
            true => best.last().unwrap().1 + 1,
            false => (first..rows.len()).find(|r| rows[*r].0 > limit).unwrap_or(rows.len()),
        };
        let is_clean = |chain: &&Chain| {
            let taken = |until: usize| chain.iter().rfind(|(_, row)| *row < until);
            (chain[0].1 + 1..from).all(|row| {
                let level = taken(row).map_or(0, |(step, _)| *step as u32);
                // The row may be the chain's next step, but it excludes first.
                let says = |c: &u32| *c > steps as u32;
                rows[row].1.iter().filter(|c| says(c)).all(|c| {
                    let (a, b) = rules.exclusions[*c as usize - steps - 1];
                    !(a..b).contains(&level)
                })
            })
        };
        let clean = chains
            .iter()
            .filter(|c| {
                let (begin, end) = (c[0].1, c.last().unwrap().1);
                begin >= first && end < from && rows[begin].0 <= limit && rows[begin].1[0] == 1
            })
            .filter(is_clean);
        if let Some((clean_level, clean)) = best_of(clean, rows)
            && (clean_level, clean.len()) == (level, best.len())
        {
            let best = if rules.exclusions.is_empty() { best } else { clean };
            found.push((
                level as u32,
                vec![rows[best[0].1].0, rows[best.last().unwrap().1].0, best.len() as i64],
            ));
        }
    }
    found
}

const STEPS: u32 = 4;

fn touches(exclusions: u32) -> impl Strategy<Value = Vec<Touch>> {
    let row = (0i64..9, prop::collection::btree_set(1u32..=STEPS + exclusions, 0..=2));
    prop::collection::vec(row, 0..9).prop_map(|rows| {
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

fn rules() -> impl Strategy<Value = AttemptRules> {
    let order = prop::sample::select(vec![Modes::default(), Modes::FIXED, Modes::ORDER]);
    let gaps = prop::collection::vec(prop::option::of(0i64..5), STEPS as usize);
    let exclusion = (1u32..STEPS, 1u32..STEPS).prop_map(|(a, more)| (a, (a + more).min(STEPS)));
    let exclusions = prop::collection::vec(exclusion, 0..=2);
    (order, 0i64..8, prop::collection::vec(any::<bool>(), 4), gaps, exclusions, 0u8..8).prop_map(
        |(order, window, mut optional, mut gaps, mut exclusions, which)| {
            optional[0] = false;
            // Each alone, too.
            if which & 1 != 0 {
                optional.fill(false);
            }
            if which & 2 != 0 {
                gaps.fill(None);
            }
            if which & 4 != 0 {
                exclusions.clear();
            }
            let modes = Modes::ONCE.and(order);
            let chain = Rules { steps: STEPS as usize, window, modes };
            AttemptRules { chain, optional, gaps, exclusions, is_any_order: false }
        },
    )
}

fn fast(touches: &[Touch], rules: &AttemptRules) -> Vec<Attempt> {
    let mut timeline = Timeline::default();
    timeline.read(touches, rules);
    Finder::new(rules).all(&timeline, timeline.places())
}

/// Conditions that exclude which the rules do not have are no touches.
fn of_rules(mut touches: Vec<Touch>, rules: &AttemptRules) -> Vec<Touch> {
    let most = STEPS + rules.exclusions.len() as u32;
    touches.retain(|t| t.step <= most && (t.step > 0 || rules.chain.modes.has(Modes::ORDER)));
    touches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40_000))]

    #[test]
    fn attempts_are_those_of_the_definition(touches in touches(2), rules in rules()) {
        let touches = of_rules(touches, &rules);
        let slow = slow_attempts(&rows_of(&touches), &rules);
        let shown: Vec<(u32, Vec<i64>)> = fast(&touches, &rules)
            .iter()
            .map(|attempt| {
                let taken: Vec<i64> = attempt.steps.iter().flatten().map(|s| s.0).collect();
                (attempt.level, vec![taken[0], taken[taken.len() - 1], taken.len() as i64])
            })
            .collect();
        prop_assert_eq!(shown, slow, "{:?} {:?}", rules, touches);
    }

    /// Without more rules the best attempt is the best chain of the other algorithm.
    #[test]
    fn the_best_attempt_is_the_best_chain(
        touches in touches(0),
        window in 0i64..8,
        modes in prop::sample::select(vec![
            Modes::default(), Modes::FIXED, Modes::ORDER, Modes::DEDUPLICATION, Modes::INCREASE,
            Modes::INCREASE.and(Modes::FIXED), Modes::ONCE.and(Modes::DEDUPLICATION), Modes::ORDER.and(Modes::REENTRY),
        ]),
    ) {
        let chain = Rules { steps: STEPS as usize, window, modes };
        let none = || vec![None; STEPS as usize];
        let rules = AttemptRules {
            chain, optional: vec![false; STEPS as usize], gaps: none(), exclusions: vec![], is_any_order: false,
        };
        let touches = of_rules(touches, &rules);
        let expected = crate::funnel::chain::best_chain(&touches, &chain);
        let mut timeline = Timeline::default();
        timeline.read(&touches, &rules);
        let best = Finder::new(&rules).best(&timeline, timeline.places());
        let taken = best.map_or(vec![], |best| best.steps.iter().flatten().map(|s| s.0).collect::<Vec<i64>>());
        prop_assert_eq!(taken.len(), expected.len(), "{:?} {:?}", rules, touches);
        prop_assert_eq!(taken.last(), expected.last());
    }

    /// In any order: the most steps that rows of a window can be, each one of them.
    #[test]
    fn any_order_is_the_fullest_window(touches in touches(0), window in 0i64..8) {
        let chain = Rules { steps: STEPS as usize, window, modes: Modes::default() };
        let rules = AttemptRules {
            chain, optional: vec![false; 4], gaps: vec![None; 4], exclusions: vec![], is_any_order: true,
        };
        let rows = rows_of(&of_rules(touches.clone(), &rules));
        fn most(rows: &[(i64, Vec<u32>, u32)], done: &mut Vec<u32>) -> usize {
            let Some((first, rest)) = rows.split_first() else { return done.len() };
            let mut best = most(rest, done);
            for step in &first.1 {
                if !done.contains(step) {
                    done.push(*step);
                    best = best.max(most(rest, done));
                    done.pop();
                }
            }
            best
        }
        let of_window = |from: usize| {
            let to = rows.partition_point(|row| row.0 <= rows[from].0 + window);
            most(&rows[from..to], &mut vec![])
        };
        let slow = (0..rows.len()).map(of_window).max().unwrap_or(0);
        let found = fast(&of_rules(touches, &rules), &rules);
        let deepest = found.iter().map(|attempt| attempt.level).max().unwrap_or(0);
        prop_assert_eq!(deepest as usize, slow, "{:?}", rows);
        for attempt in &found {
            let taken: Vec<i64> = attempt.steps.iter().flatten().map(|s| s.0).collect();
            prop_assert_eq!(taken.len(), attempt.level as usize);
            prop_assert!(taken.is_sorted() && taken[taken.len() - 1] - taken[0] <= window);
        }
    }
}
