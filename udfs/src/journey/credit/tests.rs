use proptest::prelude::*;

use super::*;

const DIRECT: u32 = 0;

fn rules(is_keyed: bool, lookback: i64) -> CreditRules {
    let models = MODELS.map(|(model, _)| model).to_vec();
    CreditRules {
        models,
        lookback,
        half_life: 3,
        weights: [1.0, 2.0, 5.0],
        order: 2,
        since: i64::MIN,
        is_keyed,
    }
}

/// What channels get in the plainest way: every conversion looks at every touch, and weights are numbers.
fn slow(
    touches: &[(i64, u32)],
    conversions: &[(i64, f64)],
    rules: &CreditRules,
) -> BTreeMap<(Model, u32), (f64, f64)> {
    let mut given: BTreeMap<(Model, u32), (f64, f64)> = BTreeMap::new();
    for (at, value) in conversions {
        let path: Vec<(i64, u32)> = touches
            .iter()
            .filter(|(touch, _)| *touch <= *at && *touch > at - rules.lookback)
            .copied()
            .collect();
        let n = path.len();
        for model in &rules.models {
            let weight = |i: usize| -> f64 {
                let (touch, channel) = path[i];
                let first_of_channel = path.iter().position(|p| p.1 == channel) == Some(i);
                let by_place = |first: f64, between: f64, last: f64| match n {
                    1 => 1.0,
                    2 => [first, last][i] / (first + last),
                    _ if i == 0 => first / (first + between + last),
                    _ if i + 1 == n => last / (first + between + last),
                    _ => between / (n - 2) as f64 / (first + between + last),
                };
                let channels: BTreeSet<u32> = path.iter().map(|p| p.1).collect();
                let last_other = path.iter().rposition(|p| p.1 != DIRECT).unwrap_or(n - 1);
                match model {
                    Model::First => f64::from(u8::from(i == 0)),
                    Model::Last => f64::from(u8::from(i + 1 == n)),
                    Model::LastNonDirect => f64::from(u8::from(i == last_other)),
                    Model::Linear => 1.0 / n as f64,
                    Model::TimeDecay => {
                        let of = |t: i64| 0.5f64.powf((at - t) as f64 / rules.half_life as f64);
                        of(touch) / path.iter().map(|p| of(p.0)).sum::<f64>()
                    }
                    Model::Position => by_place(0.4, 0.2, 0.4),
                    Model::Custom => by_place(1.0, 2.0, 5.0),
                    Model::Participation => f64::from(u8::from(first_of_channel)),
                    Model::Shapley => f64::from(u8::from(first_of_channel)) / channels.len() as f64,
                    Model::Markov => 0.0,
                }
            };
            if n == 0 {
                let to = given.entry((*model, NO_NAME)).or_default();
                (to.0, to.1) = (to.0 + 1.0, to.1 + value);
            }
            for (i, (_, channel)) in path.iter().enumerate() {
                let to = given.entry((*model, *channel)).or_default();
                (to.0, to.1) = (to.0 + weight(i), to.1 + weight(i) * value);
            }
        }
    }
    given
}

fn deal(kind: i8, key: Option<&str>, value: i128) -> Deal {
    Deal { kind, key: key.map(Into::into), value }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn credit_is_what_plain_weights_give(
        touches in prop::collection::vec((0i64..20, 0u32..4), 0..10),
        conversions in prop::collection::vec((0i64..25, 0i64..1000), 0..4),
        lookback in 1i64..12,
    ) {
        let rules = rules(false, lookback);
        let mut touches = touches;
        touches.sort_unstable();
        let events: Vec<Event> = touches.iter().map(|(at, name)| Event::of(*at, *name)).collect();
        let deals: Vec<(i64, Deal)> =
            conversions.iter().map(|(at, value)| (*at, deal(CONVERSION, None, i128::from(*value) * 1_000_000))).collect();
        let pieces = divide(&events, deals.iter().map(|(at, deal)| (*at, deal)), &rules, |c| c == DIRECT, u32::cmp);
        let money: Vec<(i64, f64)> = conversions.iter().map(|(at, value)| (*at, *value as f64)).collect();
        for ((model, channel), (count, value)) in slow(&touches, &money, &rules) {
            if model == Model::Markov && channel != NO_NAME {
                continue;
            }
            let credit = pieces.get(&Piece::Channel(model, channel)).copied().unwrap_or_default();
            let unit = UNIT as f64;
            prop_assert!((credit.conversions as f64 / unit - count).abs() < 1e-9, "{:?} {}", model, channel);
            prop_assert!((credit.value as f64 / unit - value).abs() < 1e-6, "{:?} {}", model, channel);
        }
        // Nothing is lost and nothing comes from nowhere.
        let all: i128 = conversions.iter().map(|(_, value)| i128::from(*value)).sum::<i128>() * UNIT;
        for model in rules.models.iter().filter(|m| !matches!(m, Model::Participation | Model::Markov)) {
            let of = |piece: &Piece| matches!(piece, Piece::Channel(of, _) if of == model);
            let sum: i128 = pieces.iter().filter(|(piece, _)| of(piece)).map(|(_, c)| c.value).sum();
            let count: i128 = pieces.iter().filter(|(piece, _)| of(piece)).map(|(_, c)| c.conversions).sum();
            prop_assert_eq!((sum, count), (all, conversions.len() as i128 * UNIT));
        }
        // Each touch is of a journey, and journeys end as often as they begin.
        let total = |is_it: fn(&Piece) -> bool| pieces.iter().filter(|(p, _)| is_it(p)).map(|(_, c)| c.conversions).sum::<i128>();
        let begun = total(|p| matches!(p, Piece::Step(from, _) if from.is_empty()));
        let ended = total(|p| matches!(p, Piece::Converted(_) | Piece::Lost(_)));
        prop_assert_eq!(begun, ended);
    }
}

#[test]
fn an_order_is_one_conversion_less_what_was_refunded() {
    let touch = [Event::of(1, 7)];
    let given = |deals: &[(i64, Deal)]| {
        let pieces = divide(
            &touch,
            deals.iter().map(|(at, d)| (*at, d)),
            &rules(true, 10),
            |_| false,
            u32::cmp,
        );
        pieces.get(&Piece::Channel(Model::Last, 7)).map(|c| (c.conversions / UNIT, c.value / UNIT))
    };
    let money = |units: i128| units * 1_000_000;
    let lines =
        [(2, deal(CONVERSION, Some("o"), money(3))), (3, deal(CONVERSION, Some("o"), money(4)))];
    assert_eq!(given(&lines), Some((1, 7)));
    let part = [lines.as_slice(), &[(9, deal(REFUND, Some("o"), money(-2)))]].concat();
    assert_eq!(given(&part), Some((1, 5)));
    let whole = [lines.as_slice(), &[(9, deal(REFUND, Some("o"), money(7)))]].concat();
    assert_eq!(given(&whole), None);
    let other = [lines.as_slice(), &[(9, deal(REFUND, Some("p"), money(7)))]].concat();
    assert_eq!(given(&other), Some((1, 7)));
    // Rows without a key are conversions by themselves.
    let alone = [(2, deal(CONVERSION, None, 0)), (3, deal(CONVERSION, None, 0))];
    assert_eq!(given(&alone), Some((2, 0)));
    // A conversion that is not asked about gives no credit, but its touches are not lost.
    let asked_not = [(2, deal(3, None, money(5)))];
    assert_eq!(given(&asked_not), None);
    let pieces = divide(
        &touch,
        asked_not.iter().map(|(at, d)| (*at, d)),
        &rules(true, 10),
        |_| false,
        u32::cmp,
    );
    assert_eq!(pieces, Pieces::new());
}
