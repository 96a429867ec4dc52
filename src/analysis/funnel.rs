//! What the reports about funnels share: the arguments that say what a funnel is, and each customer's best attempt.

use arrow::datatypes::DataType;

use super::steps::Step;
use super::{Request, all_known, column_list, misuse};
use crate::dialect::quoted;
use crate::error::Result;

/// The deepest step of a customer's best attempt.
pub(super) const LEVEL: &str = "get_field(__path, 'level')";

/// A funnel over a relation.
pub(super) struct Funnel {
    /// The columns that name a customer.
    pub(super) names: String,
    /// The column of times.
    pub(super) time: String,
    pub(super) steps: Vec<Step>,
    /// Whether customers have a breakdown.
    pub(super) is_broken_down: bool,
    /// A query with a row for each customer: the columns that name it, `breakdown`, and `__path`, what `funnel_path` gives.
    pub(super) paths: String,
}

impl Funnel {
    /// Reads the arguments of a funnel; what else a function takes it has read before.
    pub(super) fn read(request: &mut Request<'_>) -> Result<Self> {
        let customer = request.customer()?;
        let time = request.needed_column("time", &["occurred_at", "ordered_at"])?;
        let event = request.column("event", &["event"])?;
        let steps = request.arguments.texts("steps")?;
        let window = request
            .arguments
            .expression("window")
            .map_or("INTERVAL '14 days'".to_owned(), |w| w.to_string());
        let order = request.arguments.word("order", &["ordered", "strict", "fixed"])?;
        let hold = request.column("hold", &[])?;
        let breakdown = request.column("breakdown", &[])?;
        let from = request.arguments.expression("from");
        let to = request.arguments.expression("to");
        let timezone = request.timezone()?;
        request.arguments.finish()?;
        let mode = match order {
            "strict" => "strict_order",
            "fixed" => "fixed",
            _ => "default",
        };
        let Some(steps) = steps else {
            return Err(misuse(request.function, "the steps are missing")
                .hint("steps => ARRAY['visit', 'cart', 'pay']"));
        };
        let steps = steps
            .iter()
            .map(|text| Step::parse(text, event.as_deref()))
            .collect::<Result<Vec<_>>>()?;

        let names = column_list(&customer);
        let conditions = steps.iter().map(|s| s.condition.clone()).collect::<Vec<_>>().join(", ");
        let day = format!("local_date({}, {timezone})", quoted(&time));
        let mut rows = format!("{} AND {} IS NOT NULL", all_known(&customer), quoted(&time));
        if let Some(from) = from {
            rows.push_str(&format!(" AND {day} >= CAST({from} AS DATE)"));
        }
        if let Some(to) = to {
            rows.push_str(&format!(" AND {day} <= CAST({to} AS DATE)"));
        }
        // The breakdown of a customer is that of the first event of step 1.
        let broken = breakdown.as_ref().map_or("CAST(NULL AS TEXT)".to_owned(), |column| {
            format!(
                "first_value(CAST({} AS TEXT) ORDER BY {}) FILTER (WHERE {})",
                quoted(column),
                quoted(&time),
                steps[0].condition
            )
        });
        if let Some(hold) = &hold {
            rows.push_str(&format!(" AND {} IS NOT NULL", quoted(hold)));
        }
        let (time_column, relation) = (quoted(&time), &request.relation);
        let attempts = |of: &str| {
            format!(
                "SELECT {of}, {broken} AS breakdown, \
                   funnel_path({window}, '{mode}', {time_column}, {conditions}) AS __path \
                 FROM {relation} AS __r WHERE {rows} GROUP BY {of}",
            )
        };
        let paths = match hold {
            None => attempts(&names),
            // Each value that is held is a funnel by itself; a customer's best one counts.
            Some(hold) => {
                let hold = quoted(&hold);
                let best = format!(
                    "ORDER BY {LEVEL} DESC, array_element(get_field(__path, 'times'), CAST({LEVEL} AS BIGINT)), CAST({hold} AS TEXT)"
                );
                format!(
                    "SELECT {names}, first_value(breakdown {best}) AS breakdown, first_value(__path {best}) AS __path \
                     FROM ({}) AS __held GROUP BY {names}",
                    attempts(&format!("{names}, {hold}"))
                )
            }
        };
        let is_broken_down = breakdown.is_some();
        Ok(Self { names, time, steps, is_broken_down, paths })
    }

    /// The time from a step to another, in seconds, of a customer who came to both.
    pub(super) fn seconds(&self, request: &Request<'_>, from: usize, to: usize) -> String {
        let at = |step: usize| {
            format!("CAST(array_element(get_field(__path, 'times'), {step}) AS BIGINT)")
        };
        let difference = format!("{} - {}", at(to), at(from));
        match request.columns.data_type(&self.time) {
            Some(DataType::Date32 | DataType::Date64) => {
                format!("CAST(({difference}) * 86400 AS DOUBLE)")
            }
            // Divided, for no double is a millionth: a minute would not be 60 seconds.
            _ => format!("CAST({difference} AS DOUBLE) / CAST(1000000 AS DOUBLE)"),
        }
    }
}
