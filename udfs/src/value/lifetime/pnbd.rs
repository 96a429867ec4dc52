//! Pareto/NBD: a customer buys by chance at a rate of their own until they are gone, at any moment, by a rate of their own.
//!
//! Schmittlein, Morrison and Colombo, "Counting Your Customers", Management Science 33 (1987), in the form of Fader and Hardie, "A note
//! on deriving the Pareto/NBD model and related expressions" (2005).

use super::minimize::minimize;
use super::special::{hypergeometric, ln_gamma, ln_sum};
use super::{Alike, Fit};

/// `r`, `alpha` of the rates of buying, `s`, `beta` of the rates of being gone.
pub type Parameters = [f64; 4];

/// `ln` of the part of the likelihood in which the customer is gone, over that in which they are alive; `None` when it is nothing.
fn ln_gone(&[r, alpha, s, beta]: &Parameters, x: f64, t_x: f64, t: f64) -> Option<f64> {
    let n = r + s + x;
    if t_x >= t {
        return None;
    }
    let (more, less, b) = if alpha >= beta { (alpha, beta, s + 1.0) } else { (beta, alpha, r + x) };
    if (more - less) / (more + t_x) > SERIES_TO {
        return Some(ln_gone_by_integral(&[r, alpha, s, beta], x, t_x, t));
    }
    let at = |time: f64| {
        let (_, ln) = hypergeometric(n, b, n + 1.0, (more - less) / (more + time));
        ln - n * (more + time).ln()
    };
    let (early, late) = (at(t_x), at(t));
    // A0, the difference of the two.
    let ln_a0 = early + (-(late - early).exp()).ln_1p();
    let ln = s.ln() - n.ln() + ln_a0;
    (ln > f64::NEG_INFINITY).then_some(ln)
}

/// Up to here the series of 2F1 has a few hundred terms; nearer to 1 it has millions.
const SERIES_TO: f64 = 0.95;

/// Places and weights of Gauss and Legendre's rule of eight points between -1 and 1; the others lie on the other side of 0.
const GAUSS: [(f64, f64); 4] = [
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_48),
    (0.960_289_856_497_536_3, 0.101_228_536_290_376_26),
];

/// The same as [`ln_gone`], as the integral that it is, over the moment at which the customer went, on the scale on which it is smooth.
fn ln_gone_by_integral(&[r, alpha, s, beta]: &Parameters, x: f64, t_x: f64, t: f64) -> f64 {
    let least = alpha.min(beta);
    let (from, to) = ((least + t_x).ln(), (least + t).ln());
    let ln_at = |u: f64| {
        let moment = u.exp() - least;
        u - (r + x) * (alpha + moment).ln() - (s + 1.0) * (beta + moment).ln()
    };
    // What decays fast is cut into more pieces.
    let pieces = ((to - from) * (2.0 + (r + x + s) / 4.0)).ceil().clamp(1.0, 400.0);
    let half = (to - from) / pieces / 2.0;
    let most = ln_at(from).max(ln_at(to));
    let mut sum = 0.0;
    for piece in 0..pieces as u32 {
        let middle = from + half * (2.0 * f64::from(piece) + 1.0);
        for (place, weight) in GAUSS {
            let both = (ln_at(middle - half * place) - most).exp()
                + (ln_at(middle + half * place) - most).exp();
            sum += weight * half * both;
        }
    }
    s.ln() + most + sum.ln()
}

fn ln_alive(&[r, alpha, s, beta]: &Parameters, x: f64, t: f64) -> f64 {
    -(r + x) * (alpha + t).ln() - s * (beta + t).ln()
}

/// Log-likelihood of one customer.
fn term(parameters: &Parameters, c: &Alike) -> f64 {
    let [r, alpha, s, beta] = *parameters;
    let alive = ln_alive(parameters, c.x, c.t);
    let gone = ln_gone(parameters, c.x, c.t_x, c.t).unwrap_or(f64::NEG_INFINITY);
    ln_gamma(r + c.x) - ln_gamma(r) + r * alpha.ln() + s * beta.ln() + ln_sum(alive, gone).0
}

/// Log-likelihood of customers.
pub fn log_likelihood(parameters: &Parameters, all: &[Alike]) -> f64 {
    all.iter().map(|c| c.customers * term(parameters, c)).sum()
}

/// The parameters under which the customers are most likely; `None` without customers.
///
/// Cost: some 300 passes over the distinct (x, t_x, t), for slopes are taken from values beside.
pub fn fit(all: &[Alike]) -> Option<Fit<4>> {
    const BESIDE: f64 = 1e-5;
    let customers: f64 = all.iter().map(|c| c.customers).sum();
    if customers <= 0.0 {
        return None;
    }
    let value = |parameters: &Parameters| -log_likelihood(parameters, all) / customers;
    let time: f64 = all.iter().map(|c| c.customers * c.t).sum::<f64>() / customers;
    let time = time.max(1e-6);
    let found = minimize([1.0, time, 1.0, time], |parameters| {
        let mut by = [0.0; 4];
        for i in 0..4 {
            let beside = |factor: f64| {
                let mut there = *parameters;
                there[i] *= factor;
                value(&there)
            };
            by[i] = (beside(1.0 + BESIDE) - beside(1.0 - BESIDE)) / (2.0 * BESIDE * parameters[i]);
        }
        (value(parameters), by)
    });
    Some(Fit {
        parameters: found.at,
        log_likelihood: -found.value * customers,
        iterations: found.steps,
        converged: found.is_bottom,
    })
}

/// The probability that a customer is alive.
pub fn p_alive(parameters: &Parameters, x: f64, t_x: f64, t: f64) -> f64 {
    match ln_gone(parameters, x, t_x, t) {
        Some(gone) => 1.0 / (1.0 + (gone - ln_alive(parameters, x, t)).exp()),
        None => 1.0,
    }
}

/// Purchases that are expected of a customer within `horizon` after `t`. Of a new one: `x`, `t_x` and `t` are 0.
pub fn expected(parameters: &Parameters, x: f64, t_x: f64, t: f64, horizon: f64) -> f64 {
    let [r, alpha, s, beta] = *parameters;
    let s = if (s - 1.0).abs() < 1e-9 { 1.0 + 1e-9 } else { s };
    let while_alive = (r + x) * (beta + t) / ((alpha + t) * (s - 1.0))
        * -((s - 1.0) * ((beta + t) / (beta + t + horizon)).ln()).exp_m1();
    while_alive * p_alive(parameters, x, t_x, t)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fader and Hardie's worked figures for CDNOW.
    #[test]
    fn published_expectations() {
        let paper = [0.553, 10.578, 0.606, 11.669];
        assert!((expected(&paper, 0.0, 0.0, 0.0, 52.0) - 1.4734).abs() < 1e-3);
        assert!((expected(&paper, 26.0, 30.86, 31.0, 52.0) - 25.456).abs() < 1e-2);
        assert!((p_alive(&paper, 26.0, 30.86, 31.0) - 0.9979).abs() < 1e-4);
    }

    /// The part in which the customer is gone is an integral over the moment at which they went.
    #[test]
    fn being_gone_is_an_integral() {
        for parameters in [
            [0.553, 10.578, 0.606, 11.669],
            [1.5, 3.0, 0.4, 20.0],
            [0.5, 900.0, 0.6, 0.2],
            [0.5, 0.1, 0.6, 5000.0],
        ] {
            let [r, alpha, s, beta] = parameters;
            let (x, t_x, t) = (3.0, 10.0, 38.0);
            let steps = 200_000;
            let width = (t - t_x) / f64::from(steps);
            let sum: f64 = (0..steps)
                .map(|i| {
                    let at = t_x + (f64::from(i) + 0.5) * width;
                    s * (-(r + x) * (alpha + at).ln() - (s + 1.0) * (beta + at).ln()).exp() * width
                })
                .sum();
            for found in [
                ln_gone(&parameters, x, t_x, t).unwrap(),
                ln_gone_by_integral(&parameters, x, t_x, t),
            ] {
                assert!((found.exp() - sum).abs() < 1e-7 * sum, "{} {sum}", found.exp());
            }
        }
    }

    #[test]
    fn a_customer_of_this_moment_is_alive() {
        let paper = [0.553, 10.578, 0.606, 11.669];
        assert_eq!(p_alive(&paper, 2.0, 10.0, 10.0), 1.0);
        assert!(p_alive(&paper, 0.0, 0.0, 30.0) < 1.0);
        let at_one = expected(&[0.5, 10.0, 1.0, 11.0], 1.0, 5.0, 20.0, 10.0);
        let beside = expected(&[0.5, 10.0, 1.000_01, 11.0], 1.0, 5.0, 20.0, 10.0);
        assert!((at_one - beside).abs() < 1e-4);
    }
}
