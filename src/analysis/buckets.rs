//! The periods of a trend.

use crate::dialect::literal;

/// Periods of one length. Weeks count back from the last day, others are those of the calendar.
pub(super) struct Buckets {
    unit: &'static str,
    last_day: String,
}

impl Buckets {
    /// The intervals there are; the first is the default.
    pub(super) const UNITS: [&str; 5] = ["day", "week", "month", "quarter", "year"];

    /// `last_day` is an expression of the day that weeks count back from.
    pub(super) fn new(unit: &'static str, last_day: String) -> Self {
        Self { unit, last_day }
    }

    /// The number of the period that holds a day.
    pub(super) fn index(&self, day: &str) -> String {
        match self.unit {
            "week" => {
                let back =
                    format!("period_index({}, 'day') - period_index({day}, 'day')", self.last_day);
                // Days after the last one are of later weeks; a division rounds towards zero.
                format!(
                    "CASE WHEN {back} >= 0 THEN -(({back}) / 7) ELSE 1 - (({back} + 1) / 7) END"
                )
            }
            unit => format!("period_index({day}, {})", literal(unit)),
        }
    }

    /// The first day of the period of a number.
    pub(super) fn start(&self, index: &str) -> String {
        match self.unit {
            "week" => format!(
                "period_start(period_index({}, 'day') + ({index}) * 7 - 6, 'day')",
                self.last_day
            ),
            unit => format!("period_start({index}, {})", literal(unit)),
        }
    }

    /// The most days a period has.
    pub(super) fn days(&self) -> i64 {
        match self.unit {
            "day" => 1,
            "week" => 7,
            "month" => 31,
            "quarter" => 92,
            _ => 366,
        }
    }
}
