//! `sessionize(time, gap) OVER (...)`: which visit of a customer's an event belongs to.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};

use super::call::{coerced_time, coerced_window, window_in_units_of};
use super::state::times_of;
use crate::BadArgument;

const NAME: &str = "sessionize";

/// The number of the session that each event of the window's partition belongs to, from 1.
///
/// | argument | type                            | meaning                                                             |
/// |----------|---------------------------------|---------------------------------------------------------------------|
/// | `time`   | TIMESTAMP, DATE or whole number | a row with a NULL belongs to no session and gets NULL               |
/// | `gap`    | INTERVAL or whole number        | constant; an event later than this after the one before it begins another session; a bare number is seconds on a timestamp, days on a date, the column's unit on a number |
///
/// Returns BIGINT. The times decide, whatever the order of the window; the frame is the whole partition. Cost: a sort.
/// # Errors
/// [`BadArgument`] for a time that is none, or a gap that is negative, in months or not constant. Named after the function of
/// DuckDB's extension `behavioral`; see `docs/sessionize.md`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Sessionize {
    signature: Signature,
}

impl Sessionize {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Sessionize {
    fn default() -> Self {
        Self::new()
    }
}

impl WindowUDFImpl for Sessionize {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [time, gap] = arg_types else {
            return Err(BadArgument::err(
                NAME,
                "arguments",
                "two are needed: sessionize(time, INTERVAL '30 minutes')",
            ));
        };
        Ok(vec![coerced_time(NAME, time)?, coerced_window(NAME, "gap", gap)?])
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int64, true)))
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Sessions))
    }
}

#[derive(Debug)]
struct Sessions;

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let gap = &values[1];
        let mut gaps = (0..num_rows).map(|row| ScalarValue::try_from_array(gap, row));
        let Some(first) = gaps.next().transpose()? else {
            return Ok(Arc::new(Int64Array::new_null(0)));
        };
        if first.is_null() || gaps.any(|other| other.is_ok_and(|other| other != first)) {
            return Err(BadArgument::err(NAME, "gap", "depends on the row; a constant is needed"));
        }
        let gap = window_in_units_of(NAME, "gap", &first, values[0].data_type())?;
        let times: Vec<Option<i64>> = times_of(&values[0])?.iter().collect();
        Ok(Arc::new(Int64Array::from(sessions(&times, gap))))
    }
}

/// The session of each time: another one begins where more than `gap` has passed since the time before.
fn sessions(times: &[Option<i64>], gap: i64) -> Vec<Option<i64>> {
    let mut ordered: Vec<(i64, usize)> =
        times.iter().enumerate().filter_map(|(row, at)| Some(((*at)?, row))).collect();
    if !ordered.is_sorted() {
        ordered.sort_unstable();
    }
    let mut sessions = vec![None; times.len()];
    let (mut session, mut before) = (0, None);
    for (at, row) in ordered {
        if before.is_none_or(|before| at.saturating_sub(before) > gap) {
            session += 1;
        }
        sessions[row] = Some(session);
        before = Some(at);
    }
    sessions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_that_is_longer_begins_a_session() {
        let times = [Some(0), Some(30), None, Some(61), Some(61), Some(500)];
        let numbers = [Some(1), Some(1), None, Some(2), Some(2), Some(3)];
        assert_eq!(sessions(&times, 30), numbers);
        assert_eq!(sessions(&[], 30), []);
    }

    proptest! {
        /// The session of a time is one more than the breaks before it, by counting them.
        #[test]
        fn agrees_with_counting_breaks(
            times in prop::collection::vec(prop::option::of(0i64..60), 0..30), gap in 0i64..8
        ) {
            let known: Vec<i64> = times.iter().flatten().copied().collect();
            let begins = |at: i64| !known.iter().any(|b| *b < at && at - b <= gap);
            let slow = |at: i64| {
                let mut starts: Vec<i64> =
                    known.iter().copied().filter(|b| *b <= at && begins(*b)).collect();
                starts.sort_unstable();
                starts.dedup();
                starts.len() as i64
            };
            let expected: Vec<Option<i64>> = times.iter().map(|at| at.map(slow)).collect();
            prop_assert_eq!(sessions(&times, gap), expected);
        }
    }
}
