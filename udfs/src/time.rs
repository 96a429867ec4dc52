//! Calendar periods of a time zone.

pub mod interval_us;
pub mod local_date;
pub mod period_index;
pub mod period_start;
pub mod series;
pub(crate) mod unit;
