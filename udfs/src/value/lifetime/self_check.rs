//! Published numbers, computed again where the program runs.

use super::bgnbd::{self, Variant};
use super::{Alike, gamma_gamma, pnbd};
use crate::journey::credit::{CONVERSION, CreditRules, Model, Piece, UNIT, divide};
use crate::journey::events::{Deal, Event};
use crate::journey::markov::Journeys;
use crate::value::tgi::tgi;

/// How many of the CDNOW sample's customers are alike: facts about 2,357 customers, in days.
const CDNOW: &str = include_str!("cdnow.txt");

/// A published number and what is computed here.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What it is of.
    pub name: String,
    /// Where it was published.
    pub source: &'static str,
    /// As it was published.
    pub published: f64,
    /// As it is computed here.
    pub computed: f64,
    /// By how much they may differ: absolutely.
    pub tolerance: f64,
}

impl Check {
    /// Whether they agree.
    pub fn holds(&self) -> bool {
        (self.published - self.computed).abs() <= self.tolerance
    }
}

/// The customers of the CDNOW sample in weeks, as the models take them.
pub fn cdnow() -> Vec<Alike> {
    let mut all = Vec::new();
    for line in CDNOW.lines().filter(|line| !line.starts_with('#')) {
        let Some((t, rows)) = line.split_once(':') else { continue };
        for row in rows.split(',') {
            let numbers: Vec<f64> =
                row.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            if let (&[x, t_x, customers], Ok(t)) = (numbers.as_slice(), t.parse::<f64>()) {
                all.push(Alike { x, t_x: t_x / 7.0, t: t / 7.0, customers });
            }
        }
    }
    all
}

/// Computes every published number; takes a second.
pub fn checks() -> Vec<Check> {
    const BG: &str = "Fader, Hardie, Lee 2005, Marketing Science 24(2)";
    const PARETO: &str = "Fader, Hardie 2005, a note on deriving the Pareto/NBD model";
    const GAMMA: &str = "Fader, Hardie 2013, the gamma-gamma model of monetary value";
    let mut all = Vec::new();
    let mut check = |name: &str, source, published, computed, tolerance| {
        all.push(Check { name: name.to_owned(), source, published, computed, tolerance });
    };
    let cdnow = cdnow();
    let count = |is: &dyn Fn(&Alike) -> bool| -> f64 {
        cdnow.iter().filter(|c| is(c)).map(|c| c.customers).sum()
    };
    check("CDNOW: customers", BG, 2_357.0, count(&|_| true), 0.0);
    check("CDNOW: customers with repeat purchases", BG, 946.0, count(&|c| c.x > 0.0), 0.0);
    let repeats: f64 = cdnow.iter().map(|c| c.x * c.customers).sum();
    check("CDNOW: repeat purchases", BG, 2_457.0, repeats, 0.0);
    let alike = [1411.0, 439.0, 214.0, 100.0, 62.0, 38.0, 29.0];
    for (x, published) in alike.into_iter().enumerate() {
        let x = x as f64;
        check(&format!("CDNOW: customers with x = {x}"), BG, published, count(&|c| c.x == x), 0.0);
    }
    if let Some(fit) = bgnbd::fit(Variant::Bg, &cdnow) {
        for ((name, published), found) in
            [("r", 0.243), ("alpha", 4.414), ("a", 0.793), ("b", 2.426)]
                .into_iter()
                .zip(fit.parameters)
        {
            check(&format!("BG/NBD of CDNOW: {name}"), BG, published, found, published * 0.003);
        }
        check("BG/NBD of CDNOW: log-likelihood", BG, -9_582.4, fit.log_likelihood, 0.05);
        let expected = bgnbd::expected(Variant::Bg, &fit.parameters, 0.0, 0.0, 0.0, 52.0);
        check(
            "BG/NBD of CDNOW: purchases of a new customer within 52 weeks",
            BG,
            1.444,
            expected,
            0.0005,
        );
    }
    if let Some(fit) = pnbd::fit(&cdnow) {
        for ((name, published), found) in
            [("r", 0.553), ("alpha", 10.578), ("s", 0.606), ("beta", 11.669)]
                .into_iter()
                .zip(fit.parameters)
        {
            check(
                &format!("Pareto/NBD of CDNOW: {name}"),
                PARETO,
                published,
                found,
                published * 0.003,
            );
        }
        check("Pareto/NBD of CDNOW: log-likelihood", PARETO, -9_594.98, fit.log_likelihood, 0.05);
    }
    let paper = [0.243, 4.414, 0.793, 2.426];
    let expected = bgnbd::expected(Variant::Bg, &paper, 2.0, 30.43, 38.86, 39.0);
    check("BG/NBD: purchases of (2, 30.43, 38.86) within 39 weeks", BG, 1.226, expected, 0.0005);
    let paper = [0.553, 10.578, 0.606, 11.669];
    let expected = pnbd::expected(&paper, 0.0, 0.0, 0.0, 52.0);
    check(
        "Pareto/NBD: purchases of a new customer within 52 weeks",
        PARETO,
        1.4734,
        expected,
        0.0005,
    );
    let expected = pnbd::expected(&paper, 26.0, 30.86, 31.0, 52.0);
    check(
        "Pareto/NBD: purchases of (26, 30.86, 31) within 52 weeks",
        PARETO,
        25.456,
        expected,
        0.005,
    );
    let alive = pnbd::p_alive(&paper, 26.0, 30.86, 31.0);
    check("Pareto/NBD: probability that (26, 30.86, 31) is alive", PARETO, 0.9979, alive, 0.0001);
    let paid = gamma_gamma::expected(&[6.25, 3.74, 15.44], 2.0, 22.35);
    check("gamma-gamma: payment of a customer with 2 purchases of 22.35", GAMMA, 24.66, paid, 0.02);
    const MARKOV: &str = "S. Bryl 2016, multi-channel attribution with Markov chains, part 1";
    let shares = shares_of_channels();
    for ((name, published), share) in
        [("C1", 0.2), ("C2", 0.4), ("C3", 0.4)].into_iter().zip(shares)
    {
        check(
            &format!("Markov: share of {name} of three journeys"),
            MARKOV,
            published,
            share,
            1e-9,
        );
    }
    const GAME: &str =
        "the textbook's game of three: alone 80, 56 and 70, in pairs 80, 85 and 72, together 90";
    for (player, (published, share)) in
        [39.17, 20.67, 30.17].into_iter().zip(shares_of_game()).enumerate()
    {
        check(&format!("Shapley: share of player {}", player + 1), GAME, published, share, 0.005);
    }
    const TGI: &str = "worked examples of the target group index; two were printed wrong";
    check("TGI of 8.9 % against 6.6 %", TGI, 134.85, tgi(8.9, 100.0, 6.6, 100.0), 0.01);
    check(
        "TGI of 30 of 93 against 120 of 369 (printed 99.3)",
        TGI,
        99.19,
        tgi(30.0, 93.0, 120.0, 369.0),
        0.01,
    );
    check("TGI of 10 % against 4 %", TGI, 250.0, tgi(10.0, 100.0, 4.0, 100.0), 1e-9);
    all
}

/// The worth of channels by their absence, of three journeys that were published: C1-C2-C3, converted, C1 and C2-C3, both lost.
fn shares_of_channels() -> Vec<f64> {
    let journeys = [(vec![1, 2, 3], true), (vec![1], false), (vec![2, 3], false)];
    let effects = Journeys::counted(&journeys, 1).removal_effects().unwrap_or_default();
    let total: f64 = effects.values().sum();
    effects.values().map(|effect| effect / total).collect()
}

/// The Shapley values of a game of three, by the credit that conversions give: what a set of players is worth beyond all smaller ones
/// is the worth of conversions whose channels are that set.
fn shares_of_game() -> Vec<f64> {
    const MILLIONTHS: i128 = 1_000_000;
    let worths: [(&[u32], i128); 7] = [
        (&[1], 80),
        (&[2], 56),
        (&[3], 70),
        (&[1, 2], 80),
        (&[1, 3], 85),
        (&[2, 3], 72),
        (&[1, 2, 3], 90),
    ];
    let rules = CreditRules {
        models: vec![Model::Shapley],
        lookback: 100,
        half_life: 1,
        weights: [1.0; 3],
        order: 1,
        since: i64::MIN,
        is_keyed: false,
    };
    let mut beyond: Vec<(&[u32], i128)> = Vec::new();
    let mut shares = [0; 3];
    for (players, worth) in worths {
        let is_smaller = |set: &[u32]| set.iter().all(|player| players.contains(player));
        let smaller = beyond.iter().filter(|(set, _)| is_smaller(set)).map(|(_, value)| value);
        let value = worth - smaller.sum::<i128>();
        beyond.push((players, value));
        let touches: Vec<Event> = (0..).zip(players).map(|(at, p)| Event::of(at, *p)).collect();
        let deal = Deal { kind: CONVERSION, key: None, value: value * MILLIONTHS };
        let credit = divide(&touches, std::iter::once((10, &deal)), &rules, |_| false, u32::cmp);
        for (share, player) in shares.iter_mut().zip(1..) {
            let of = credit.get(&Piece::Channel(Model::Shapley, player));
            *share += of.map_or(0, |credit| credit.value);
        }
    }
    shares.map(|share| share as f64 / UNIT as f64).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_numbers_hold() {
        let failed: Vec<Check> = checks().into_iter().filter(|check| !check.holds()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}
