//! Scores and segments in which equal values are equal, and what customers will be worth.

pub mod apart;
pub mod concentration;
mod gathered;
pub mod is_word;
pub mod kept_cuts;
pub mod lifetime;
pub mod normal_p_value;
pub mod one_currency;
pub mod order_of;
pub mod own_segment;
pub mod points_left;
pub mod quantile_cuts;
pub mod quantile_score;
pub mod rate_of;
pub mod rfm_segment;
pub mod score_fixed;
pub mod tgi;
