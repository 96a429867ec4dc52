//! What a customer will be worth: models of buying and of being alive, fitted to counts of customers that are alike.
//!
//! `bgnbd.rs`, `pnbd.rs` and `gamma_gamma.rs` are plain functions of numbers; `fit.rs` and `predict.rs` make them functions of SQL.

pub mod bgnbd;
pub mod fit;
pub mod gamma_gamma;
mod minimize;
pub mod pnbd;
pub mod predict;
pub mod self_check;
mod special;

/// Customers who are alike: `x` repeat purchases, the last one `t_x` after the first, watched for `t`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alike {
    /// Repeat purchases.
    pub x: f64,
    /// Time from the first purchase to the last.
    pub t_x: f64,
    /// Time from the first purchase to the end of the observation.
    pub t: f64,
    /// How many customers.
    pub customers: f64,
}

/// Parameters that were found, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit<const N: usize> {
    /// In the order in which the model names them.
    pub parameters: [f64; N],
    /// Log-likelihood of all customers.
    pub log_likelihood: f64,
    /// Steps of the search.
    pub iterations: u32,
    /// Whether it came to a maximum.
    pub converged: bool,
}

/// Customers who are alike to a model.
trait Counted {
    /// Their repeat purchases.
    fn x(&self) -> f64;
    /// How many they are.
    fn customers(&self) -> f64;
}

impl Counted for Alike {
    fn x(&self) -> f64 {
        self.x
    }

    fn customers(&self) -> f64 {
        self.customers
    }
}

/// Sums a log-likelihood and its derivatives over every `every`th of `all`, which are ordered by `x`: `of_x` gives what `x` alone
/// says, which is computed once, `of_row` what the rest of a row says beside it.
fn sum<T: Counted, const N: usize>(
    all: &[T],
    every: usize,
    of_x: impl Fn(f64) -> (f64, [f64; N]),
    of_row: impl Fn(&T) -> (f64, [f64; N]),
) -> (f64, [f64; N]) {
    let (mut value, mut by) = (0.0, [0.0; N]);
    let mut add = |customers: f64, (ln, slope): (f64, [f64; N])| {
        value += customers * ln;
        for i in 0..N {
            by[i] += customers * slope[i];
        }
    };
    // NaN is no `x`.
    let (mut x, mut same) = (f64::NAN, 0.0);
    for c in all.iter().step_by(every) {
        if c.x() != x {
            if same > 0.0 {
                add(same, of_x(x));
            }
            (x, same) = (c.x(), 0.0);
        }
        same += c.customers();
        add(c.customers(), of_row(c));
    }
    if same > 0.0 {
        add(same, of_x(x));
    }
    (value, by)
}

/// The mean of a figure of customers, which is above 0, as a place to begin a search; `None` without customers.
fn mean<T: Counted>(all: &[T], of: impl Fn(&T) -> f64) -> Option<f64> {
    let customers: f64 = all.iter().map(T::customers).sum();
    let sum: f64 = all.iter().map(|c| c.customers() * of(c)).sum();
    (customers > 0.0).then(|| (sum / customers).max(1e-6))
}

/// The parameters under which customers are most likely: `f` gives the log-likelihood of every `n`th of `all`, and its derivatives.
fn likeliest<T: Counted, const N: usize>(
    all: &[T],
    start: [f64; N],
    f: impl Fn(usize, &[f64; N]) -> (f64, [f64; N]),
) -> Fit<N> {
    let customers = |every| all.iter().step_by(every).map(T::customers).sum::<f64>();
    let found = minimize::minimize_over(all.len(), start, |every, parameters| {
        let (value, by) = f(every, parameters);
        let customers = customers(every);
        (-value / customers, by.map(|slope| -slope / customers))
    });
    Fit {
        parameters: found.at,
        log_likelihood: -found.value * customers(1),
        iterations: found.steps,
        converged: found.is_bottom,
    }
}

/// Compares derivatives with what values beside give.
#[cfg(test)]
fn slopes_are_those_of_the_value<const N: usize>(
    at: [f64; N],
    f: impl Fn(&[f64; N]) -> (f64, [f64; N]),
) {
    let (_, slope) = f(&at);
    for i in 0..N {
        let beside = |by: f64| {
            let mut there = at;
            there[i] += by;
            f(&there).0
        };
        let step = 1e-6 * at[i].max(1e-3);
        let wanted = (beside(step) - beside(-step)) / (2.0 * step);
        let is_near = (slope[i] - wanted).abs() < 1e-5 * (1.0 + wanted.abs());
        assert!(is_near, "{at:?} {i}: {} {wanted}", slope[i]);
    }
}
