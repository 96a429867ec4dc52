//! What the reports about funnels share: the arguments that say what a funnel is, and the attempts that count.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{Array, Expr};

use super::steps::{Step, exclusion};
use super::{Request, all_known, column_list, misuse, within};
use crate::dialect::{literal, quoted};
use crate::error::{Error, Result};

/// The deepest step of an attempt.
pub(super) const LEVEL: &str = "get_field(__a, 'level')";

/// A funnel over a relation.
pub(super) struct Funnel {
    /// The columns that name a customer,
    pub(super) customer: Vec<String>,
    /// and as a list.
    pub(super) names: String,
    /// The column of times.
    time: String,
    /// Whether the steps are known: not those of a parameter without a value yet.
    pub(super) is_known: bool,
    /// What its steps are called.
    pub(super) steps: Vec<String>,
    /// By step: whether it may be left out.
    is_optional: Vec<bool>,
    /// Whether attempts have a breakdown.
    pub(super) is_broken_down: bool,
    /// A query with a row for each customer, session or attempt that counts: the columns that name the customer, `breakdown`, and
    /// `__a`, the attempt.
    pub(super) paths: String,
    /// The longest time from the first step to the last.
    pub(super) window: String,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Users,
    Attempts,
    Sessions,
}

/// Where the breakdown of an attempt comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Attribution {
    First,
    Last,
    Step(i64),
    All,
}

impl Funnel {
    /// Reads the arguments of a funnel; what else a function takes it has read before. `bucket` makes of a day the text by which the best attempt
    /// is asked for: a customer then counts once in each.
    pub(super) fn read(
        request: &mut Request<'_>,
        bucket: Option<&dyn Fn(&str) -> String>,
    ) -> Result<Self> {
        let function = request.function;
        let customer = request.customer()?;
        let time = request.needed_column("time", &["occurred_at", "ordered_at"])?;
        let event = request.column("event", &["event"])?;
        let steps = request.arguments.texts("steps")?;
        let window = request
            .arguments
            .expression("window")
            .map_or("INTERVAL '14 days'".to_owned(), |w| w.to_string());
        let order = request.arguments.word("order", &["ordered", "strict", "fixed", "any"])?;
        let hold = request.column("hold", &[])?;
        let breakdown = request.column("breakdown", &[])?;
        let attribution = request.arguments.text("attribution")?;
        let exclude = request.arguments.texts("exclude")?.unwrap_or_default();
        let optional = request.arguments.numbers("optional")?.unwrap_or_default();
        let step_window = request.arguments.bound("step_window");
        let count = match request.arguments.word("count", &["users", "attempts", "sessions"])? {
            "attempts" => Count::Attempts,
            "sessions" => Count::Sessions,
            _ => Count::Users,
        };
        let gap = request.arguments.expression("session_gap");
        let gap = gap.map_or("INTERVAL '30 minutes'".to_owned(), |gap| gap.to_string());
        let from = request.arguments.expression("from");
        let to = request.arguments.expression("to");
        let timezone = request.timezone()?;
        request.arguments.finish()?;

        let Some(texts) = steps else {
            return Err(misuse(function, "the steps are missing")
                .hint("steps => ARRAY['visit', 'cart', 'pay']"));
        };
        let steps = texts.iter().map(|text| Step::parse(text, event.as_deref()));
        let steps = steps.collect::<Result<Vec<_>>>()?;
        let last = steps.len();
        // Steps that are a parameter without a value are as many as it will have: what speaks of them is looked at then.
        let is_known = texts != ["?"];
        let is_optional = match is_known {
            true => optional_steps(function, &optional, last)?,
            false => vec![false],
        };
        let step_window = step_window.filter(|_| is_known);
        let gaps = gaps(function, step_window, last)?;
        if order == "any" && (gaps.is_some() || is_optional.contains(&true)) {
            return Err(misuse(
                function,
                "order => 'any': its steps have no order, so that none is optional and none has a step_window",
            ));
        }
        let attribution = attribution.filter(|_| is_known);
        let attribution = attribution_of(function, attribution.as_deref(), last)?;
        let mut between = Vec::new();
        let mut conditions: Vec<String> = steps.iter().map(|s| s.condition.clone()).collect();
        for text in exclude.iter().filter(|_| is_known) {
            let (range, step) = exclusion(text, event.as_deref())?;
            let (first, second) = range.unwrap_or((1, last as i64));
            if first < 1 || first >= second || second > last as i64 {
                return Err(misuse(
                    function,
                    format!(
                        "exclude => '{}@{first}-{second}': the funnel has {last} steps, the first of the two comes first",
                        step.name
                    ),
                ));
            }
            between.push(first.to_string());
            between.push(second.to_string());
            conditions.push(step.condition);
        }

        let names = column_list(&customer);
        let day = format!("local_date({}, {timezone})", quoted(&time));
        let mut rows = format!("{} AND {} IS NOT NULL", all_known(&customer), quoted(&time));
        // A trend is of the days of entries: what follows them may be later.
        rows.push_str(&within(&day, from, to.filter(|_| bucket.is_none())));
        if let Some(hold) = &hold {
            rows.push_str(&format!(" AND {} IS NOT NULL", quoted(hold)));
        }
        let mut relation = format!("{} AS __r WHERE {rows}", request.relation);
        let mut keys = vec![names.clone()];
        let mut outer_keys = vec![names.clone()];
        if count == Count::Sessions {
            relation = format!(
                "(SELECT *, sessionize({time}, {gap}) OVER (PARTITION BY {names} ORDER BY {time}) AS __session FROM {relation}) AS __r",
                time = quoted(&time)
            );
            keys.push("__session".to_owned());
            outer_keys.push("__session".to_owned());
        }
        if order != "strict" {
            // Elsewhere rows that satisfy no condition change nothing.
            let any = conditions.join(" OR ");
            match count {
                Count::Sessions => relation.push_str(&format!(" WHERE {any}")),
                _ => relation.push_str(&format!(" AND ({any})")),
            }
        }
        let no_text = "CAST(NULL AS TEXT)".to_owned();
        let text = breakdown.as_ref().map(|column| format!("CAST({} AS TEXT)", quoted(column)));
        let is_each = attribution == Attribution::All && text.is_some();
        let tag = match (&text, is_each) {
            (Some(text), false) => text.clone(),
            _ => no_text.clone(),
        };
        let of_each = match (&text, is_each) {
            (Some(text), true) => {
                // By a name of its own: the column may be held, too.
                relation = format!("(SELECT *, {text} AS __b FROM {relation}) AS __r");
                keys.push("__b".to_owned());
                outer_keys.push("__b".to_owned());
                "__b".to_owned()
            }
            _ => no_text.clone(),
        };
        if let Some(hold) = &hold {
            keys.push(quoted(hold));
        }
        let aggregate = match (count, bucket) {
            (Count::Attempts, _) => "__funnel_attempts",
            (Count::Users, Some(_)) => "__funnel_daily",
            _ => "__funnel_best",
        };
        let numbers = |numbers: Vec<String>| match numbers.is_empty() {
            true => "CAST(NULL AS BIGINT[])".to_owned(),
            false => format!("ARRAY[{}]", numbers.join(", ")),
        };
        let left_out = is_optional.iter().enumerate().filter(|(_, is_optional)| **is_optional);
        let mut attempts = format!(
            "SELECT {shown}, {of_each} AS __b{held}, \
               unnest({aggregate}('{order}', {window}, {last}, {optional}, {gaps}, {between}, {time}, {tag}, {bucket}, {conditions})) AS __a \
             FROM {relation} GROUP BY {keys}",
            shown = names,
            held = match (&hold, count) {
                (Some(hold), Count::Sessions) => format!(", __session, {} AS __hold", quoted(hold)),
                (Some(hold), _) => format!(", {} AS __hold", quoted(hold)),
                (None, _) => String::new(),
            },
            optional = numbers(left_out.map(|(i, _)| (i + 1).to_string()).collect()),
            gaps = gaps.unwrap_or_else(|| "CAST(NULL AS INTERVAL[])".to_owned()),
            between = numbers(between),
            time = quoted(&time),
            bucket = bucket.map_or(no_text.clone(), |bucket| bucket(&day)),
            conditions = conditions.join(", "),
            keys = keys.join(", "),
        );
        if hold.is_some() && count != Count::Attempts {
            // Each value that is held is a funnel by itself; the best attempt counts.
            if bucket.is_some() {
                outer_keys.push("get_field(__a, 'bucket')".to_owned());
            }
            if !is_each {
                outer_keys.push("__b".to_owned());
            }
            let best = format!(
                "ORDER BY {LEVEL} DESC, array_element(get_field(__a, 'times'), CAST({LEVEL} AS BIGINT)), CAST(__hold AS TEXT)"
            );
            attempts = format!(
                "SELECT {names}, __b, first_value(__a {best}) AS __a FROM ({attempts}) AS __held GROUP BY {}",
                outer_keys.join(", ")
            );
        }
        let value = |place: &str| format!("array_element(get_field(__a, 'values'), {place})");
        let shown = match (&attribution, count) {
            _ if breakdown.is_none() => no_text,
            (Attribution::All, _) => "__b".to_owned(),
            (Attribution::Step(step), _) => value(&step.to_string()),
            (Attribution::First, Count::Attempts) => value("1"),
            (Attribution::Last, Count::Attempts) => value(&format!("CAST({LEVEL} AS BIGINT)")),
            (Attribution::First, _) => "get_field(__a, 'first')".to_owned(),
            (Attribution::Last, _) => "get_field(__a, 'last')".to_owned(),
        };
        let paths = format!(
            "SELECT {names}, CAST({shown} AS TEXT) AS breakdown, __a FROM ({attempts}) AS __attempts"
        );
        let steps = match order {
            "any" => (1..=last).map(|step| format!("{step} of {last}")).collect(),
            _ => steps.into_iter().map(|step| step.name).collect(),
        };
        let is_broken_down = breakdown.is_some();
        Ok(Self {
            customer,
            names,
            is_known,
            time,
            steps,
            is_optional,
            is_broken_down,
            paths,
            window,
        })
    }

    /// Whether an attempt took a step, counted from 1.
    pub(super) fn reached(&self, step: usize) -> String {
        match self.is_optional[step - 1] {
            true => format!("({LEVEL} >= {step} AND {} IS NOT NULL)", at(step)),
            false => format!("{LEVEL} >= {step}"),
        }
    }

    /// The last step before this one that no attempt leaves out; of the first step itself.
    pub(super) fn needed_before(&self, step: usize) -> usize {
        (1..step).rev().find(|before| !self.is_optional[before - 1]).unwrap_or(1)
    }

    /// The time from a step to another, in seconds, of an attempt that took both.
    pub(super) fn seconds(&self, request: &Request<'_>, from: usize, to: usize) -> String {
        self.in_seconds(request, &at(from), &at(to))
    }

    /// The time to a step from the one that was taken before it, in seconds.
    pub(super) fn seconds_to(&self, request: &Request<'_>, step: usize) -> String {
        let before = self.needed_before(step);
        let taken: Vec<String> = (before..step.max(before + 1)).rev().map(at).collect();
        let taken = match taken.as_slice() {
            [one] => one.clone(),
            several => format!("coalesce({})", several.join(", ")),
        };
        self.in_seconds(request, &taken, &at(step))
    }

    fn in_seconds(&self, request: &Request<'_>, from: &str, to: &str) -> String {
        let difference = format!("CAST({to} AS BIGINT) - CAST({from} AS BIGINT)");
        match request.columns.data_type(&self.time) {
            Some(DataType::Date32 | DataType::Date64) => {
                format!("CAST(({difference}) * 86400 AS DOUBLE)")
            }
            // Divided, for no double is a millionth: a minute would not be 60 seconds.
            _ => format!("CAST({difference} AS DOUBLE) / CAST(1000000 AS DOUBLE)"),
        }
    }

    /// `(1, 'visit'), (2, 'pay')`.
    pub(super) fn table_of_steps(&self) -> String {
        let numbered = self.steps.iter().enumerate();
        let rows = numbered.map(|(i, name)| format!("({}, {})", i + 1, literal(name)));
        rows.collect::<Vec<_>>().join(", ")
    }
}

/// When an attempt took a step.
fn at(step: usize) -> String {
    format!("array_element(get_field(__a, 'times'), {step})")
}

/// By step: whether it may be left out.
fn optional_steps(function: &str, given: &[f64], last: usize) -> Result<Vec<bool>> {
    let mut is_optional = vec![false; last];
    for step in given {
        match (*step as usize).checked_sub(1).filter(|i| *i > 0 && *i < last && step.fract() == 0.0)
        {
            Some(i) => is_optional[i] = true,
            None => {
                return Err(misuse(
                    function,
                    format!(
                        "optional => ARRAY[{step}]: a step from 2 to {last} is needed; the first is never optional"
                    ),
                ));
            }
        }
    }
    Ok(is_optional)
}

/// The times between steps as an array.
fn gaps(function: &str, given: Option<Expr>, last: usize) -> Result<Option<String>> {
    match given {
        None => Ok(None),
        Some(Expr::Array(Array { elem, .. })) if elem.len() + 1 == last => {
            let each = elem.iter().map(|gap| format!("CAST({gap} AS INTERVAL)"));
            Ok(Some(format!("ARRAY[{}]", each.collect::<Vec<_>>().join(", "))))
        }
        Some(other) => Err(misuse(
            function,
            format!(
                "step_window => {other}: an array of {} intervals is needed, from each step to the next; NULL is no limit",
                last - 1
            ),
        )),
    }
}

fn attribution_of(function: &str, given: Option<&str>, last: usize) -> Result<Attribution> {
    let wrong = |given: &str| -> Error {
        misuse(
            function,
            format!(
                "attribution => '{given}': allowed are first, last, all, step:1 to step:{last}"
            ),
        )
    };
    match given {
        None | Some("first") => Ok(Attribution::First),
        Some("last") => Ok(Attribution::Last),
        Some("all") => Ok(Attribution::All),
        Some(given) => {
            match given.strip_prefix("step:").and_then(|step| step.parse::<i64>().ok()) {
                Some(step) if (1..=last as i64).contains(&step) => Ok(Attribution::Step(step)),
                _ => Err(wrong(given)),
            }
        }
    }
}
