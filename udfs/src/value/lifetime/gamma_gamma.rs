//! Gamma-gamma: what a customer spends at a time varies around a mean of their own, which has nothing to do with how often they buy.
//!
//! Fader and Hardie, "The gamma-gamma model of monetary value" (2013).

use super::special::{digamma, ln_gamma};
use super::{Counted, Fit, likeliest, mean, sum};

/// `p`, `q` and `gamma`.
pub type Parameters = [f64; 3];

/// Customers who bought again: how often, and the mean of what they paid each time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spending {
    /// Repeat purchases, above 0.
    pub x: f64,
    /// Mean of their amounts, above 0.
    pub mean: f64,
    /// How many customers.
    pub customers: f64,
}

impl Counted for Spending {
    fn x(&self) -> f64 {
        self.x
    }

    fn customers(&self) -> f64 {
        self.customers
    }
}

/// Log-likelihood of customers, of every `every`th of `all`, and its derivative by each parameter.
fn log_likelihood(every: usize, [p, q, gamma]: &Parameters, all: &[Spending]) -> (f64, Parameters) {
    let of_x = |x: f64| {
        let px = p * x;
        let value = ln_gamma(px + q) - ln_gamma(px) - ln_gamma(*q) + q * gamma.ln() + px * x.ln();
        let more = digamma(px + q);
        let by_p = x * (more - digamma(px) + x.ln());
        (value, [by_p, more - digamma(*q) + gamma.ln(), q / gamma])
    };
    let of_mean = |c: &Spending| {
        let (px, sum) = (p * c.x, gamma + c.mean * c.x);
        let (ln_mean, ln_sum) = (c.mean.ln(), sum.ln());
        let value = (px - 1.0) * ln_mean - (px + q) * ln_sum;
        (value, [c.x * (ln_mean - ln_sum), -ln_sum, -(px + q) / sum])
    };
    sum(all, every, of_x, of_mean)
}

/// The parameters under which the customers are most likely; `None` without customers.
///
/// Cost: some 10 passes over the distinct (x, mean).
pub fn fit(all: &[Spending]) -> Option<Fit<3>> {
    let start = [2.0, 2.0, mean(all, |c| c.mean)?];
    Some(likeliest(all, start, |every, parameters| log_likelihood(every, parameters, all)))
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
    use super::super::slopes_are_those_of_the_value;
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
        let all = [Spending { x: 3.0, mean: 21.5, customers: 2.0 }];
        slopes_are_those_of_the_value([6.25, 3.74, 15.44], |at| log_likelihood(1, at, &all));
    }
}
