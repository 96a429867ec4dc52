//! Scores and segments in which equal values are equal.

pub mod one_currency;
pub mod own_segment;
pub mod quantile_cuts;
pub mod quantile_score;
pub mod rfm_segment;
pub mod score_fixed;
