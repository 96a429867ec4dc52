//! What customers did on the way: paths through a visit, and the touches that led to a conversion.
//!
//! The aggregates here have names of two underscores: reports of the product write them, and what they give is not meant to be
//! read by people. Each gathers a customer's events first; what it makes of them is a plain function of a sorted slice.

pub mod attribution;
pub(crate) mod credit;
pub(crate) mod events;
pub(crate) mod markov;
pub mod paths;
mod sessions;
