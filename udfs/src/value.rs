//! Scores and segments in which equal values are equal.

pub mod quantile_score;
pub mod rfm_segment;
pub mod score_fixed;
