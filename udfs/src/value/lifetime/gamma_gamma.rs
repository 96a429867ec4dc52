//! Gamma-gamma: what a customer spends at a time varies around a mean of their own, which has nothing to do with how often they buy.
//!
//! Fader and Hardie, "The gamma-gamma model of monetary value" (2013).

use super::Fit;
use super::minimize::minimize;
use super::special::{digamma, ln_gamma};

/// `p`, `q` and `gamma`.
pub type Parameters = [f64; 3];

/// A customer who bought again: how often, and the mean of what they paid each time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spending {
    /// Repeat purchases, above 0.
    pub x: f64,
    /// Mean of their amounts, above 0.
    pub mean: f64,
}

/// Log-likelihood of one customer, and its derivative by each parameter.
fn term([p, q, gamma]: &Parameters, c: &Spending) -> (f64, Parameters) {
    let (x, mean) = (c.x, c.mean);
    let (px, sum) = (p * x, gamma + mean * x);
    let value = ln_gamma(px + q) - ln_gamma(px) - ln_gamma(*q)
        + q * gamma.ln()
        + (px - 1.0) * mean.ln()
        + px * x.ln()
        - (px + q) * sum.ln();
    let by_p = x * (digamma(px + q) - digamma(px) + mean.ln() + x.ln() - sum.ln());
    let by_q = digamma(px + q) - digamma(*q) + gamma.ln() - sum.ln();
    let by_gamma = q / gamma - (px + q) / sum;
    (value, [by_p, by_q, by_gamma])
}

/// Log-likelihood of customers.
pub fn log_likelihood(parameters: &Parameters, all: &[Spending]) -> f64 {
    all.iter().map(|c| term(parameters, c).0).sum()
}

/// The parameters under which the customers are most likely; `None` without customers.
pub fn fit(all: &[Spending]) -> Option<Fit<3>> {
    if all.is_empty() {
        return None;
    }
    let customers = all.len() as f64;
    let mean = all.iter().map(|c| c.mean).sum::<f64>() / customers;
    let found = minimize([2.0, 2.0, mean.max(1e-6)], |parameters| {
        let (mut value, mut by) = (0.0, [0.0; 3]);
        for c in all {
            let (ln, slope) = term(parameters, c);
            value -= ln;
            for i in 0..3 {
                by[i] -= slope[i];
            }
        }
        (value / customers, by.map(|slope| slope / customers))
    });
    Some(Fit {
        parameters: found.at,
        log_likelihood: -found.value * customers,
        iterations: found.steps,
        converged: found.is_bottom,
    })
}

/// What a customer is expected to pay at a time: between the mean of all and their own, nearer to that the more often they bought.
/// Without repeat purchases it is the mean of all, which is infinite where `q` is 1 or less.
pub fn expected([p, q, gamma]: &Parameters, x: f64, mean: f64) -> f64 {
    let left = p * x + q - 1.0;
    if left <= 0.0 {
        return f64::INFINITY;
    }
    p * (gamma + mean * x) / left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fader and Hardie 2013: the first customers of CDNOW with repeat purchases.
    #[test]
    fn published_expectations() {
        let paper = [6.25, 3.74, 15.44];
        // Customer 1: two repeat purchases of 22.35 in the mean; the mean of all is p gamma / (q - 1).
        assert!((expected(&paper, 2.0, 22.35) - 24.66).abs() < 0.02);
        assert!((expected(&paper, 0.0, 0.0) - 35.22).abs() < 0.05);
    }

    #[test]
    fn slopes_are_slopes() {
        let c = Spending { x: 3.0, mean: 21.5 };
        let at = [6.25, 3.74, 15.44];
        let (_, slope) = term(&at, &c);
        for i in 0..3 {
            let beside = |by: f64| {
                let mut there = at;
                there[i] += by;
                term(&there, &c).0
            };
            let wanted = (beside(1e-6) - beside(-1e-6)) / 2e-6;
            assert!((slope[i] - wanted).abs() < 1e-6, "{i}: {} {wanted}", slope[i]);
        }
    }
}
