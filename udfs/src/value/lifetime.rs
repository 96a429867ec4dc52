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
