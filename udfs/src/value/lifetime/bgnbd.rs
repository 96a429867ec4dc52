//! BG/NBD and MBG/NBD: a customer buys by chance at a rate of their own until, after a purchase, they are gone with a probability of
//! their own. In MBG/NBD they may be gone after the first purchase already.
//!
//! Fader, Hardie and Lee, "Counting Your Customers the Easy Way", Marketing Science 24 (2005); Batislam, Denizel and Filiztekin,
//! "Empirical validation and comparison of models for customer base analysis", IJRM 24 (2007).

use super::special::{digamma, hypergeometric, ln_gamma, ln_sum};
use super::{Alike, Fit, likeliest, mean, sum};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Who never bought again is alive.
    Bg,
    /// Who never bought again may be gone.
    Mbg,
}

/// `r`, `alpha` of the rates of buying, `a`, `b` of the probabilities to be gone.
pub type Parameters = [f64; 4];

impl Variant {
    /// What `b` is counted from: in BG/NBD the first purchase is no chance to be gone.
    fn shift(self) -> f64 {
        match self {
            Self::Bg => 1.0,
            Self::Mbg => 0.0,
        }
    }

    /// Whether a customer with `x` repeat purchases can be gone.
    fn may_be_gone(self, x: f64) -> bool {
        x > 0.0 || self == Self::Mbg
    }
}

/// A part of a log-likelihood, and its derivative by each parameter.
type Part = (f64, Parameters);

/// What `x` alone says, whenever it was.
fn part_of_x(variant: Variant, [r, alpha, a, b]: &Parameters, x: f64) -> Part {
    // In MBG/NBD the customer has survived one chance more.
    let n = if variant == Variant::Mbg { x + 1.0 } else { x };
    let chances = ln_gamma(a + b) + ln_gamma(b + n) - ln_gamma(*b) - ln_gamma(a + b + n);
    let value = ln_gamma(r + x) - ln_gamma(*r) + r * alpha.ln() + chances;
    let by_r = digamma(r + x) - digamma(*r) + alpha.ln();
    let by_a = digamma(a + b) - digamma(a + b + n);
    let by_b = by_a + digamma(b + n) - digamma(*b);
    (value, [by_r, r / alpha, by_a, by_b])
}

/// What the times of a customer say beside it.
fn part_of_times(variant: Variant, [r, alpha, a, b]: &Parameters, c: &Alike) -> Part {
    let (x, t_x, t) = (c.x, c.t_x, c.t);
    let late = (alpha + t).ln();
    let alive = -(r + x) * late;
    if !variant.may_be_gone(x) {
        return (alive, [-late, -(r + x) / (alpha + t), 0.0, 0.0]);
    }
    let last = (alpha + t_x).ln();
    let k = b + x - variant.shift();
    let (value, share) = ln_sum(alive, (a / k).ln() - (r + x) * last);
    let gone = 1.0 - share;
    let by_r = -share * late - gone * last;
    let by_alpha = -(r + x) * (share / (alpha + t) + gone / (alpha + t_x));
    (value, [by_r, by_alpha, gone / a, -gone / k])
}

/// Log-likelihood of every `every`th of `all`, and its derivative by each parameter.
fn log_likelihood(every: usize, variant: Variant, parameters: &Parameters, all: &[Alike]) -> Part {
    let of_x = |x| part_of_x(variant, parameters, x);
    sum(all, every, of_x, |c| part_of_times(variant, parameters, c))
}

/// The parameters under which the customers are most likely; `None` without customers.
///
/// Cost: some 10 passes over the distinct (x, t_x, t).
pub fn fit(variant: Variant, all: &[Alike]) -> Option<Fit<4>> {
    let time = mean(all, |c| c.t)?;
    let start = [1.0, time, 1.0, 1.0];
    let f = |every, parameters: &Parameters| log_likelihood(every, variant, parameters, all);
    Some(likeliest(all, start, f))
}

/// How much likelier it is that the customer is gone than that they are alive.
fn odds_of_gone(variant: Variant, [r, alpha, a, b]: &Parameters, x: f64, t_x: f64, t: f64) -> f64 {
    if !variant.may_be_gone(x) {
        return 0.0;
    }
    let ln = a.ln() - (b + x - variant.shift()).ln() + (r + x) * ((alpha + t) / (alpha + t_x)).ln();
    ln.exp()
}

/// The probability that a customer is alive.
pub fn p_alive(variant: Variant, parameters: &Parameters, x: f64, t_x: f64, t: f64) -> f64 {
    1.0 / (1.0 + odds_of_gone(variant, parameters, x, t_x, t))
}

/// Purchases that are expected of a customer within `horizon` after `t`. Of a new one: `x`, `t_x` and `t` are 0.
pub fn expected(
    variant: Variant,
    parameters: &Parameters,
    x: f64,
    t_x: f64,
    t: f64,
    horizon: f64,
) -> f64 {
    let [r, alpha, a, b] = *parameters;
    // The limit at 1 is approached from beside it.
    let a = if (a - 1.0).abs() < 1e-7 { 1.0 + 1e-7 } else { a };
    let shift = variant.shift();
    let z = horizon / (alpha + t + horizon);
    let c = a + b + x - shift;
    let c = if c.abs() < 1e-9 { 1e-9 } else { c };
    let (sign, ln) = hypergeometric(r + x, b + x + 1.0 - shift, c, z);
    let left = sign * (ln + (r + x) * ((alpha + t) / (alpha + t + horizon)).ln()).exp();
    let bought = c / (a - 1.0) * (1.0 - left);
    bought / (1.0 + odds_of_gone(variant, parameters, x, t_x, t))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::slopes_are_those_of_the_value;
    use super::*;

    /// The slopes are those of the value.
    #[test]
    fn slopes_are_slopes() {
        for variant in [Variant::Bg, Variant::Mbg] {
            for (x, t_x, t) in [(0.0, 0.0, 30.0), (1.0, 3.0, 39.0), (7.0, 30.0, 31.0)] {
                let all = [Alike { x, t_x, t, customers: 3.0 }];
                let f = |at: &Parameters| log_likelihood(1, variant, at, &all);
                slopes_are_those_of_the_value([0.3, 4.4, 0.8, 2.4], f);
            }
        }
    }

    /// Fader, Hardie and Lee 2005: a customer of Table 2's parameters with x = 2, t_x = 30.43, T = 38.86 in the next 39 weeks; and
    /// the walkthrough of the R package CLVTools' predecessor for (26, 30.86, 31).
    #[test]
    fn published_expectations() {
        let paper = [0.243, 4.414, 0.793, 2.426];
        assert!((expected(Variant::Bg, &paper, 2.0, 30.43, 38.86, 39.0) - 1.226).abs() < 1e-3);
        assert!((expected(Variant::Bg, &paper, 26.0, 30.86, 31.0, 52.0) - 25.76).abs() < 1e-2);
        assert!((p_alive(Variant::Bg, &paper, 26.0, 30.86, 31.0) - 0.969).abs() < 1e-3);
        // 1.444 is of the parameters with all their digits.
        assert!((expected(Variant::Bg, &paper, 0.0, 0.0, 0.0, 52.0) - 1.444).abs() < 3e-3);
        assert_eq!(p_alive(Variant::Bg, &paper, 0.0, 0.0, 39.0), 1.0);
        assert!(p_alive(Variant::Mbg, &paper, 0.0, 0.0, 39.0) < 1.0);
    }

    /// MBG/NBD of CDNOW by the Python package lifetimes 0.11.3.
    #[test]
    fn another_program_finds_the_same() {
        let fit = fit(Variant::Mbg, &super::super::self_check::cdnow()).unwrap();
        let theirs = [0.524_843, 6.183_082, 0.891_360, 1.614_003];
        for (ours, theirs) in fit.parameters.into_iter().zip(theirs) {
            assert!((ours / theirs - 1.0).abs() < 0.003, "{fit:?}");
        }
        assert!(fit.converged);
        assert!(
            (expected(Variant::Mbg, &theirs, 2.0, 30.43, 38.86, 39.0) - 1.262_669).abs() < 1e-5
        );
        assert!((p_alive(Variant::Mbg, &theirs, 2.0, 30.43, 38.86) - 0.706_126).abs() < 1e-5);
        assert_eq!(super::fit(Variant::Mbg, &[]), None);
    }

    /// What the model says of a rate and a probability, summed over the chances of one customer, by simulation of its definition.
    #[test]
    fn expectations_are_those_of_the_story() {
        // A rate of 0.5 and a probability of 0.25 to be gone, nearly the same for all: gamma and beta with much weight.
        let sure = 1e6;
        let parameters = [0.5 * sure, sure, 0.25 * sure, 0.75 * sure];
        // BG: purchases within 4 = sum over n of P(n-th purchase happens): (1 - exp(-rate p t)) / p.
        let wanted = (1.0 - (-0.5 * 0.25 * 4.0_f64).exp()) / 0.25;
        let found = expected(Variant::Bg, &parameters, 0.0, 0.0, 0.0, 4.0);
        assert!((found - wanted).abs() < 1e-3, "{found} {wanted}");
        let found = expected(Variant::Mbg, &parameters, 0.0, 0.0, 0.0, 4.0);
        assert!((found - 0.75 * wanted).abs() < 1e-3, "{found} {wanted}");
    }

    proptest! {
        #[test]
        fn expectations_are_sound(x in 0u32..200, gap in 0.0f64..50.0, since in 0.0f64..50.0, horizon in 0.1f64..500.0) {
            let x = f64::from(x);
            let t_x = if x == 0.0 { 0.0 } else { gap };
            let t = t_x + since;
            for variant in [Variant::Bg, Variant::Mbg] {
                let parameters = [0.243, 4.414, 0.793, 2.426];
                let some = expected(variant, &parameters, x, t_x, t, horizon);
                let more = expected(variant, &parameters, x, t_x, t, horizon * 2.0);
                prop_assert!(some.is_finite() && some >= 0.0 && more >= some, "{some} {more}");
                prop_assert!((0.0..=1.0).contains(&p_alive(variant, &parameters, x, t_x, t)));
            }
        }
    }
}
