//! Pareto/NBD: a customer buys by chance at a rate of their own until they are gone, at any moment, by a rate of their own.
//!
//! Schmittlein, Morrison and Colombo, "Counting Your Customers", Management Science 33 (1987), in the form of Fader and Hardie, "A note
//! on deriving the Pareto/NBD model and related expressions" (2005).

use super::special::{digamma, ln_gamma, ln_sum};
use super::{Alike, Fit, likeliest, mean, sum};

/// `r`, `alpha` of the rates of buying, `s`, `beta` of the rates of being gone.
pub type Parameters = [f64; 4];

/// Places and weights of Gauss and Legendre's rule of eight points between -1 and 1; the others lie on the other side of 0.
const GAUSS: [(f64, f64); 4] = [
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_48),
    (0.960_289_856_497_536_3, 0.101_228_536_290_376_26),
];

/// How far the logarithm of what is integrated may fall before the rest is nothing beside it.
const NOTHING: f64 = 45.0;

/// How far it may change within one piece of eight points.
const WITHIN: f64 = 3.0;

/// The part of the likelihood in which the customer is gone: its logarithm, and its derivative by each parameter. `None` when it is
/// nothing.
///
/// It is the integral over the moment at which they went, from the last purchase on, which is taken as it stands, on the scale on
/// which it is smooth: the closed form is a difference of two values of 2F1, whose series has millions of terms where `alpha` and
/// `beta` are far apart, and no derivatives that are cheaper than the integral's.
fn gone(&[r, alpha, s, beta]: &Parameters, x: f64, t_x: f64, t: f64) -> Option<(f64, Parameters)> {
    if t_x >= t {
        return None;
    }
    let least = alpha.min(beta);
    let (from, until) = ((least + t_x).ln(), (least + t).ln());
    // Of both, one is the scale itself.
    let (more, powers) = if alpha <= beta {
        (beta - alpha, [r + x, s + 1.0])
    } else {
        (alpha - beta, [s + 1.0, r + x])
    };
    // The logarithm of what is integrated, a function of u whose slope falls all the way.
    let slope_at = |u: f64| {
        let near = u.exp();
        1.0 - powers[0] - powers[1] * near / (near + more)
    };
    let first = slope_at(from);
    let to = if first < 0.0 { until.min(from + NOTHING / -first) } else { until };
    let steepest = slope_at(to).abs().max(first.abs());
    let pieces = ((to - from) * steepest / WITHIN).max((to - from) / 1.5).ceil().clamp(1.0, 4000.0);
    let half = (to - from) / pieces / 2.0;
    let ln_at = |u: f64, ln_other: f64| u - powers[0] * u - powers[1] * ln_other;
    let most = ln_at(from, (least + t_x + more).ln());
    // Of the density of the moment: all of it, and the means of the logarithms and of the inverses of the moment from 0.
    let (mut all, mut lns, mut inverses) = (0.0, [0.0; 2], [0.0; 2]);
    for piece in 0..pieces as u32 {
        let middle = from + half * (2.0 * f64::from(piece) + 1.0);
        for (place, weight) in GAUSS {
            for u in [middle - half * place, middle + half * place] {
                let near = u.exp();
                let far = near + more;
                let ln_far = far.ln();
                let density = weight * (ln_at(u, ln_far) - most).exp();
                all += density;
                lns = [lns[0] + density * u, lns[1] + density * ln_far];
                inverses = [inverses[0] + density / near, inverses[1] + density / far];
            }
        }
    }
    let (mut lns, mut inverses) = (lns.map(|sum| sum / all), inverses.map(|sum| sum / all));
    if alpha > beta {
        lns.reverse();
        inverses.reverse();
    }
    let ln = s.ln() + most + (all * half).ln();
    let by = [-lns[0], -(r + x) * inverses[0], 1.0 / s - lns[1], -(s + 1.0) * inverses[1]];
    (ln > f64::NEG_INFINITY).then_some((ln, by))
}

fn ln_alive(&[r, alpha, s, beta]: &Parameters, x: f64, t: f64) -> f64 {
    -(r + x) * (alpha + t).ln() - s * (beta + t).ln()
}

/// Log-likelihood of every `every`th of `all`, and its derivative by each parameter.
fn log_likelihood(every: usize, parameters: &Parameters, all: &[Alike]) -> (f64, Parameters) {
    let [r, alpha, s, beta] = *parameters;
    let of_x = |x: f64| {
        let value = ln_gamma(r + x) - ln_gamma(r) + r * alpha.ln() + s * beta.ln();
        let by_r = digamma(r + x) - digamma(r) + alpha.ln();
        (value, [by_r, r / alpha, beta.ln(), s / beta])
    };
    let of_times = |c: &Alike| {
        let (late_a, late_b) = (alpha + c.t, beta + c.t);
        let by_alive = [-late_a.ln(), -(r + c.x) / late_a, -late_b.ln(), -s / late_b];
        let alive = (r + c.x) * by_alive[0] + s * by_alive[2];
        let Some((gone, by_gone)) = gone(parameters, c.x, c.t_x, c.t) else {
            return (alive, by_alive);
        };
        let (value, share) = ln_sum(alive, gone);
        let mut by = by_alive;
        for (by, by_gone) in by.iter_mut().zip(by_gone) {
            *by = share * *by + (1.0 - share) * by_gone;
        }
        (value, by)
    };
    sum(all, every, of_x, of_times)
}

/// The parameters under which the customers are most likely; `None` without customers.
///
/// Cost: some 10 passes over the distinct (x, t_x, t), with an integral for each.
pub fn fit(all: &[Alike]) -> Option<Fit<4>> {
    let time = mean(all, |c| c.t)?;
    let start = [1.0, time, 1.0, time];
    Some(likeliest(all, start, |every, parameters| log_likelihood(every, parameters, all)))
}

/// The probability that a customer is alive.
pub fn p_alive(parameters: &Parameters, x: f64, t_x: f64, t: f64) -> f64 {
    match gone(parameters, x, t_x, t) {
        Some((gone, _)) => 1.0 / (1.0 + (gone - ln_alive(parameters, x, t)).exp()),
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
    use super::super::slopes_are_those_of_the_value;
    use super::*;

    /// Fader and Hardie's worked figures for CDNOW.
    #[test]
    fn published_expectations() {
        let paper = [0.553, 10.578, 0.606, 11.669];
        assert!((expected(&paper, 0.0, 0.0, 0.0, 52.0) - 1.4734).abs() < 1e-3);
        assert!((expected(&paper, 26.0, 30.86, 31.0, 52.0) - 25.456).abs() < 1e-2);
        assert!((p_alive(&paper, 26.0, 30.86, 31.0) - 0.9979).abs() < 1e-4);
    }

    /// The integral, by so many points that any rule would do.
    fn gone_slowly(&[r, alpha, s, beta]: &Parameters, x: f64, t_x: f64, t: f64) -> f64 {
        let steps = 400_000;
        let least = alpha.min(beta);
        let (from, to) = ((least + t_x).ln(), (least + t).ln());
        let width = (to - from) / f64::from(steps);
        let ln_at = |u: f64| {
            let at = u.exp() - least;
            u - (r + x) * (alpha + at).ln() - (s + 1.0) * (beta + at).ln()
        };
        let most = ln_at(from);
        let at = |place: f64| (ln_at(from + place * width) - most).exp();
        // Simpson's rule.
        let pieces = (0..steps).map(f64::from);
        let sum: f64 = pieces.map(|i| at(i) + 4.0 * at(i + 0.5) + at(i + 1.0)).sum();
        s.ln() + most + (sum * width / 6.0).ln()
    }

    #[test]
    fn being_gone_is_an_integral() {
        for parameters in [
            [0.553, 10.578, 0.606, 11.669],
            [1.5, 3.0, 0.4, 20.0],
            [0.5, 900.0, 0.6, 0.2],
            [0.5, 0.1, 0.6, 5000.0],
            [0.5, 5.0, 40.0, 5.0],
            [30.0, 0.01, 0.02, 0.011],
        ] {
            for (x, t_x, t) in [
                (0.0, 0.0, 38.0),
                (0.0, 0.0, 100_000.0),
                (3.0, 10.0, 38.0),
                (3.0, 37.999, 38.0),
                (50.0, 0.01, 900.0),
                (2000.0, 300.0, 700.0),
                (100_000.0, 30.0, 38.0),
            ] {
                let (found, _) = gone(&parameters, x, t_x, t).unwrap();
                let wanted = gone_slowly(&parameters, x, t_x, t);
                let by = (found - wanted).abs();
                assert!(by < 2e-7, "{parameters:?} {x} {t_x} {t}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn slopes_are_slopes() {
        for (x, t_x, t) in
            [(0.0, 0.0, 38.0), (3.0, 10.0, 38.0), (60.0, 30.0, 31.0), (2.0, 5.0, 5.0)]
        {
            for at in
                [[0.553, 10.578, 0.606, 11.669], [1.5, 3.0, 0.4, 200.0], [2.0, 90.0, 0.6, 0.5]]
            {
                let all = [Alike { x, t_x, t, customers: 3.0 }];
                slopes_are_those_of_the_value(at, |at| log_likelihood(1, at, &all));
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
