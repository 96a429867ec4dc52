use proptest::prelude::*;

use super::*;

/// The chance of a conversion by walking the chain until hardly anybody is left; `without` leads nowhere.
fn slow_chance(journeys: &Journeys, without: Option<u32>) -> f64 {
    let mut totals: BTreeMap<Vec<u32>, f64> = BTreeMap::new();
    for ((from, _), count) in &journeys.steps {
        *totals.entry(from.clone()).or_default() += count;
    }
    for (from, count) in journeys.converted.iter().chain(&journeys.lost) {
        *totals.entry(from.clone()).or_default() += count;
    }
    let mut here: BTreeMap<Vec<u32>, f64> = BTreeMap::from([(vec![], 1.0)]);
    let mut converted = 0.0;
    while here.values().sum::<f64>() > 1e-13 {
        let mut next: BTreeMap<Vec<u32>, f64> = BTreeMap::new();
        for (state, share) in &here {
            let total = totals[state];
            converted += share * journeys.converted.get(state).copied().unwrap_or(0.0) / total;
            for ((from, channel), count) in &journeys.steps {
                if from == state && Some(*channel) != without {
                    let mut to = from.clone();
                    to.push(*channel);
                    let to = to.split_off(to.len().saturating_sub(journeys.order));
                    *next.entry(to).or_default() += share * count / total;
                }
            }
        }
        here = next;
    }
    converted
}

/// The example of S. Bryl, "Marketing Multi-Channel Attribution model with R (part 1: Markov chains concept)", 2016: of the journeys
/// C1-C2-C3, converted, C1 and C2-C3, both lost, the channels are worth 0.2, 0.4 and 0.4.
#[test]
fn the_published_example() {
    let journeys = [(vec![1, 2, 3], true), (vec![1], false), (vec![2, 3], false)];
    let effects = Journeys::counted(&journeys, 1).removal_effects().unwrap();
    let total: f64 = effects.values().sum();
    let shares: Vec<f64> = effects.values().map(|effect| effect / total).collect();
    for (share, expected) in shares.iter().zip([0.2, 0.4, 0.4]) {
        assert!((share - expected).abs() < 1e-12, "{shares:?}");
    }
}

#[test]
fn nobody_and_nothing() {
    assert_eq!(Journeys::counted(&[], 1).removal_effects(), Ok(BTreeMap::new()));
    assert_eq!(Journeys::counted(&[(vec![1], false)], 1).removal_effects(), Ok(BTreeMap::new()));
    let many = (0..=STATES_MAX as u32).map(|channel| (vec![channel], true)).collect::<Vec<_>>();
    assert_eq!(Journeys::counted(&many, 1).removal_effects(), Err(STATES_MAX + 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn effects_are_those_of_walking_the_chain(
        journeys in prop::collection::vec((prop::collection::vec(0u32..5, 1..6), any::<bool>()), 1..20),
        order in 1usize..4,
    ) {
        let counted = Journeys::counted(&journeys, order);
        let effects = counted.removal_effects().unwrap();
        let whole = slow_chance(&counted, None);
        if whole == 0.0 {
            prop_assert!(effects.is_empty());
        }
        for (channel, effect) in effects {
            let expected = 1.0 - slow_chance(&counted, Some(channel)) / whole;
            prop_assert!((effect - expected).abs() < 1e-9, "{} {} {:?}", effect, expected, journeys);
        }
    }
}
