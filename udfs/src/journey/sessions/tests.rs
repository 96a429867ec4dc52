use proptest::prelude::*;

use super::*;

/// The definition: visit by visit, node by node, without slices.
fn slow(events: &[Event], rules: &PathRules) -> Vec<Vec<u32>> {
    let mut visits: Vec<Vec<Event>> = Vec::new();
    for event in events {
        match visits.last_mut() {
            Some(visit) if event.at - visit[visit.len() - 1].at <= rules.gap => visit.push(*event),
            _ => visits.push(vec![*event]),
        }
    }
    let mut paths = Vec::new();
    for visit in visits {
        let mut nodes: Vec<u32> = Vec::new();
        let (mut has_begun, mut has_ended) = (rules.start.is_none(), false);
        for event in visit {
            has_begun |= rules.start == Some(Some(event.name));
            if !has_begun || has_ended {
                continue;
            }
            has_ended = rules.end == Some(Some(event.name));
            if rules.keeps_repeats || nodes.last() != Some(&event.name) {
                nodes.push(event.name);
            }
        }
        if !has_begun || (rules.end.is_some() && !has_ended) {
            continue;
        }
        if rules.end.is_some() && rules.start.is_none() {
            nodes.reverse();
            nodes.truncate(rules.steps);
            nodes.reverse();
        }
        nodes.truncate(rules.steps);
        paths.push(nodes);
    }
    paths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn paths_are_those_of_the_definition(
        events in prop::collection::vec((0i64..30, 0u32..4), 0..14),
        gap in 0i64..6,
        steps in 2usize..6,
        keeps_repeats in any::<bool>(),
        start in prop::option::of(prop::option::of(0u32..4)),
        end in prop::option::of(prop::option::of(0u32..4)),
    ) {
        let mut events: Vec<Event> = events.iter().map(|(at, name)| Event::of(*at, *name)).collect();
        events.sort_by_key(|event| (event.at, event.name));
        let rules = PathRules { gap, steps, keeps_repeats, start, end };
        let found: Vec<Vec<u32>> =
            paths(&events, &rules).map(|path| path.iter().map(|e| e.name).collect()).collect();
        prop_assert_eq!(found, slow(&events, &rules));
    }
}
