use proptest::prelude::*;

use super::*;

/// Every way to match, by trying: the places of the first and the last event.
fn slow_matches(pattern: &Pattern, events: &[(i64, Vec<u32>)]) -> Vec<(usize, usize)> {
    fn go_on(
        pattern: &Pattern,
        events: &[(i64, Vec<u32>)],
        chosen: &mut Vec<usize>,
        found: &mut Vec<(usize, usize)>,
    ) {
        let item = chosen.len();
        if item == pattern.items.len() {
            let (first, last) = (chosen[0], chosen[item - 1]);
            if pattern.longest.is_none_or(|longest| events[last].0 - events[first].0 <= longest) {
                found.push((first, last));
            }
            return;
        }
        let of = &pattern.items[item];
        let from = chosen.last().map_or(0, |last| last + 1);
        for event in from..events.len() {
            let is_it = of.condition.is_none_or(|number| events[event].1.contains(&number));
            let is_placed = chosen.last().is_none_or(|last| {
                let passed = events[event].0 - events[*last].0;
                (of.may_skip || event == last + 1) && passed >= of.after.0 && passed <= of.after.1
            });
            if is_it && is_placed {
                chosen.push(event);
                go_on(pattern, events, chosen, found);
                chosen.pop();
            }
        }
    }
    let mut found = Vec::new();
    go_on(pattern, events, &mut Vec::new(), &mut found);
    found
}

/// The most matches of which none overlaps another.
fn slow_count(matches: &[(usize, usize)], from: usize) -> usize {
    let later = matches.iter().filter(|(first, _)| *first >= from);
    later.map(|(_, last)| 1 + slow_count(matches, last + 1)).max().unwrap_or(0)
}

fn item_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1u32..4).prop_map(|n| format!("(?{n})")),
        1 => Just(".".to_owned()),
    ]
}

fn link_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        3 => Just(".*".to_owned()),
        3 => (prop::sample::select(vec!["<=", "<", ">=", ">", "=="]), 0i64..4)
            .prop_map(|(op, n)| format!("(?t{op}{n})")),
        1 => (0i64..3, 0i64..4).prop_map(|(low, high)| format!("(?t>={low})(?t<={high})")),
    ]
}

fn pattern_text() -> impl Strategy<Value = String> {
    let links = prop::collection::vec((link_text(), item_text()), 0..3);
    (item_text(), links, prop::option::of(0i64..5)).prop_map(|(first, links, longest)| {
        let mut text = first;
        links.iter().for_each(|(link, item)| text.push_str(&format!("{link}{item}")));
        longest.iter().for_each(|most| text.push_str(&format!("(?T<={most})")));
        text
    })
}

fn events() -> impl Strategy<Value = Vec<(i64, Vec<u32>)>> {
    let conditions = prop::collection::btree_set(1u32..4, 1..3);
    prop::collection::vec((0i64..6, conditions), 0..9).prop_map(|events| {
        let mut events: Vec<(i64, Vec<u32>)> =
            events.into_iter().map(|(at, of)| (at, of.into_iter().collect())).collect();
        events.sort_unstable();
        events
    })
}

fn borrowed(events: &[(i64, Vec<u32>)]) -> Vec<Event<'_>> {
    events.iter().map(|(at, conditions)| (*at, conditions.as_slice())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40_000))]

    #[test]
    fn agrees_with_trying_everything(text in pattern_text(), events in events()) {
        let pattern = Pattern::parse(&text, 3, 1).unwrap();
        let slow = slow_matches(&pattern, &events);
        let given = borrowed(&events);
        prop_assert_eq!(pattern.matches(&given), !slow.is_empty(), "{} {:?}", text, events);
        prop_assert_eq!(pattern.count(&given), slow_count(&slow, 0), "{} {:?}", text, events);
        // The chain that is told is one, as far as it goes.
        let times = pattern.times(&given);
        let depth = (0..=pattern.items.len()).rev().find(|depth| {
            let part = Pattern { items: pattern.items[..*depth].to_vec(), longest: pattern.longest };
            *depth == 0 || !slow_matches(&part, &events).is_empty()
        });
        let part = &pattern.items[..depth.unwrap_or(0)];
        prop_assert_eq!(times.len(), part.iter().filter(|item| item.condition.is_some()).count());
        prop_assert!(times.is_sorted());
    }
}

fn parse(text: &str) -> Pattern {
    Pattern::parse(text, 3, 1).unwrap()
}

/// ClickHouse, documentation of sequenceMatch, sequenceCount and sequenceMatchEvents: the examples there.
#[test]
fn the_examples_of_clickhouse() {
    let events = |numbers: &[u32], conditions: &[u32]| -> Vec<(i64, Vec<u32>)> {
        let of = |number: u32| conditions.iter().position(|c| *c == number).map(|at| at as u32 + 1);
        let seen = numbers.iter().enumerate();
        seen.filter_map(|(at, number)| Some((at as i64 + 1, vec![of(*number)?]))).collect()
    };
    let matches = |text: &str, events: &[(i64, Vec<u32>)]| parse(text).matches(&borrowed(events));
    // 1, 3, 2 at 1, 2, 3: what satisfies no condition is not seen; what satisfies one stands between.
    assert!(matches("(?1)(?2)", &events(&[1, 3, 2], &[1, 2])));
    assert!(!matches("(?1)(?2)", &events(&[1, 3, 2], &[1, 2, 3])));
    assert!(matches("(?1)(?2)", &events(&[1, 3, 2], &[1, 2, 4])));
    let twice = events(&[1, 3, 2, 1, 3, 2], &[1, 2]);
    assert_eq!(parse("(?1).*(?2)").count(&borrowed(&twice)), 2);
    assert_eq!(
        parse("(?1).*(?2).*(?1)(?3)").times(&borrowed(&events(&[1, 3, 2, 1, 3, 2], &[1, 2, 4]))),
        [1, 3, 4]
    );
}

#[test]
fn the_empty_pattern_is_in_everything() {
    let events = [(1, vec![1]), (2, vec![2])];
    let given = borrowed(&events);
    assert_eq!((parse("").matches(&given), parse("").count(&given)), (true, 2));
    assert_eq!((parse(".*").matches(&[]), parse(".").matches(&given)), (true, true));
    assert_eq!((parse(".").matches(&[]), parse(".").count(&given)), (false, 2));
    assert!(parse("").times(&given).is_empty());
}

#[test]
fn a_bad_pattern_says_where() {
    let problem = |text: &str| Pattern::parse(text, 3, 1).unwrap_err();
    assert_eq!(problem("(?4)"), "(?4): there are 3 conditions");
    assert_eq!(problem("(?0)"), "(?0): there are 3 conditions");
    assert_eq!(problem("(?x)"), "(?x): a number of a condition or a time is needed");
    assert_eq!(problem("(?1"), "at \"(?1\": a ) is missing");
    assert_eq!(problem("(?1)a"), "at \"a\": (?1), (?t<=60), (?T<=3600), . or .* is needed");
    assert_eq!(
        problem("(?1)(?t~5)(?2)"),
        "\"~5\": a time is written as >=60, >60, <=60, <60 or ==60"
    );
    assert_eq!(
        problem("(?1)(?t<=99999999999999999999)(?2)"),
        "\"<=99999999999999999999\": a time is written as >=60, >60, <=60, <60 or ==60"
    );
    assert_eq!(problem("(?t<=5)(?1)"), "a time stands before the first event");
    assert_eq!(problem("(?1)(?t<=5)"), "a time stands after the last event");
    assert_eq!(problem("(?1)(?2)(?T>=5)"), "(?T>=5): the whole may only be limited by < or <=");
}

/// A user of a million events, and a pattern that a backtracking matcher gives up on (ClickHouse issue 26095).
#[test]
fn many_events_are_no_trouble() {
    let of: Vec<u32> = (1..=3).collect();
    let events: Vec<Event<'_>> =
        (0..1_000_000).map(|n| (n, std::slice::from_ref(&of[(n % 2) as usize]))).collect();
    for text in [
        "(?1).*(?2).*(?1).*(?2).*(?3)",
        "(?1)(?t>=10)(?2)(?t<=3)(?1)(?3)",
        "(?1)(?2)(?1)(?t>5)(?3)",
    ] {
        assert!(!parse(text).matches(&events), "{text}");
    }
    assert_eq!(parse("(?1)(?2)").count(&events), 500_000);
}
