//! `retention_matrix(events, ...)`: of the customers who started in a period, how many came back in the later ones.

use super::steps::Step;
use super::{Request, all_known, column_list, misuse, same_customer};
use crate::dialect::{literal, parse_expression, quoted};
use crate::error::Result;

/// Writes the report over the relation. Rules: research "behaviour", section 5; `docs/retention_matrix.md` states them.
pub(super) fn select(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.time_column(&["occurred_at", "ordered_at"])?;
    let event = request.column("event", &["event"])?;
    let start = request.arguments.text("start")?;
    let back = request.arguments.text("back")?;
    let interval =
        request.arguments.word("interval", &["day", "week", "month", "quarter", "year", "24h"])?;
    let kind = request.arguments.word("kind", &["recurring", "first_time"])?;
    let retained = request.arguments.word("retained", &["on", "on_or_after"])?;
    let periods = request.arguments.number("periods", 0..=PERIODS_MAX)?;
    let brackets = request.arguments.numbers("brackets")?;
    let min_events = request.arguments.number("min_events", 1..=i64::MAX)?.unwrap_or(1);
    let measure = request.arguments.text("measure")?;
    let from = request.arguments.expression("from");
    let to = request.arguments.expression("to");
    let timezone = request.timezone()?;
    let as_of = request.as_of()?;
    request.arguments.finish()?;
    let periods = Periods::read(request.function, periods, brackets)?;
    let value = match measure.as_deref() {
        None | Some("users") => None,
        Some(text) => Some(summed(request.function, text)?),
    };
    // Without a start or a return, any row is one.
    let condition = |text: Option<String>| match text {
        Some(text) => Step::parse(&text, event.as_deref()).map(|step| step.condition),
        None => Ok("true".to_owned()),
    };
    let (start, back) = (condition(start)?, condition(back)?);

    let names = column_list(&customer);
    let instant = quoted(&time);
    let day = format!("local_date({instant}, {timezone})");
    // Whose periods are of 24 hours is in the cohort of the day of the start.
    let unit = literal(if interval == "24h" { "day" } else { interval });
    let until = as_of.as_ref().map_or(String::new(), |as_of| format!("AND {day} <= {as_of}"));
    let rows = format!(
        "{} AS __r WHERE {} AND {instant} IS NOT NULL {until}",
        request.relation,
        all_known(&customer),
    );
    // The day of the last instant: days go with instants, but for clocks that go back at midnight.
    let last_day = as_of
        .unwrap_or_else(|| format!("(SELECT local_date(max({instant}), {timezone}) FROM {rows})"));
    let value = value.as_deref().unwrap_or("CAST(NULL AS DECIMAL(38, 6))");
    let rules = format!(
        "ARRAY[{}], {min_events}, {}, {}",
        periods.numbers(),
        kind == "first_time",
        retained == "on_or_after"
    );
    let returns = match interval {
        "24h" => {
            let begun = format!(
                "SELECT {names}, period_index({day}, 'day') AS __p, min({instant}) AS __t FROM {rows} AND {start} GROUP BY {names}, period_index({day}, 'day')"
            );
            let begun = match kind {
                "first_time" => format!(
                    "SELECT {names}, min(__p) AS __p, min(__t) AS __t FROM ({begun}) AS __all GROUP BY {names}"
                ),
                _ => begun,
            };
            let same = same_customer(&customer, "__s", "__b");
            let keys = customer
                .iter()
                .map(|c| format!("__s.{}", quoted(c)))
                .collect::<Vec<_>>()
                .join(", ");
            // Every start is a customer of its own, who starts in the period 0.
            format!(
                "SELECT __p + get_field(__r, 'cohort') AS __cohort, get_field(__r, 'period') AS __period, get_field(__r, 'value') AS __v FROM ( \
                   SELECT __p, unnest(__r) AS __r FROM ( \
                     SELECT __s.__p, __returns({rules}, CAST(floor(interval_us(__b.{instant} - __s.__t) / CAST(86400000000 AS DOUBLE)) AS BIGINT), \
                       __b.{instant} = __s.__t, __b.__back, __b.__v) AS __r \
                     FROM ({begun}) AS __s JOIN (SELECT {names}, {instant}, {back} AS __back, {value} AS __v FROM {rows}) AS __b \
                       ON {same} AND __b.{instant} >= __s.__t GROUP BY {keys}, __s.__p) AS __starts) AS __each"
            )
        }
        _ => format!(
            "SELECT get_field(__r, 'cohort') AS __cohort, get_field(__r, 'period') AS __period, get_field(__r, 'value') AS __v FROM ( \
               SELECT unnest(__returns({rules}, period_index({day}, {unit}), {start}, {back}, {value})) AS __r \
               FROM {rows} AND ({start} OR {back}) GROUP BY {names}) AS __each"
        ),
    };
    let mut range = "true".to_owned();
    if let Some(from) = from {
        range.push_str(&format!(" AND __cohort >= period_index(CAST({from} AS DATE), {unit})"));
    }
    if let Some(to) = to {
        range.push_str(&format!(" AND __cohort <= period_index(CAST({to} AS DATE), {unit})"));
    }
    // The row of those who entered stands for every period, so that one without returns is there, too.
    let shown = format!(
        "SELECT __cohort, unnest(CASE __period WHEN -1 THEN ARRAY[{numbers}] ELSE ARRAY[__period] END) AS period, \
           CASE __period WHEN -1 THEN __n ELSE 0 END AS __size, CASE __period WHEN -1 THEN 0 ELSE __n END AS __users, __v \
         FROM (SELECT __cohort, __period, count(*) AS __n, sum(__v) AS __v FROM ({returns}) AS __returns WHERE {range} GROUP BY __cohort, __period) AS __counted",
        numbers = periods.numbers(),
    );
    // What is measured, for each customer of the cohort.
    let measured = match measure.as_deref() {
        None | Some("users") => "CAST(retained AS DOUBLE)",
        Some(_) => "CAST(__v AS DOUBLE)",
    };
    Ok(format!(
        "SELECT period_start(__cohort, {unit}) AS cohort, cohort_size, period, retained, \
           {measured} / nullif(cohort_size, 0) AS rate, \
           period_start(__cohort + period + {after}, {unit}) <= {last_day} + INTERVAL '1 day' AS complete \
         FROM (SELECT __cohort, period, CAST(sum(__size) AS BIGINT) AS cohort_size, CAST(sum(__users) AS BIGINT) AS retained, sum(__v) AS __v \
           FROM ({shown}) AS __shown GROUP BY __cohort, period) AS __summed \
         WHERE period_start(__cohort + {first}, {unit}) <= {last_day}",
        // The last customer of a day starts at its end.
        after = if interval == "24h" { 2 } else { 1 },
        first = periods.first("period"),
    ))
}

/// Most periods that are shown.
const PERIODS_MAX: i64 = 400;

/// The periods that are shown: each, or brackets of several.
enum Periods {
    /// From 0 to the last one.
    Each(i64),
    /// The last period of each bracket; the first bracket is the start's own period.
    Brackets(Vec<i64>),
}

impl Periods {
    fn read(function: &str, periods: Option<i64>, brackets: Option<Vec<f64>>) -> Result<Self> {
        let Some(brackets) = brackets else { return Ok(Self::Each(periods.unwrap_or(12))) };
        let whole: Vec<i64> = brackets.iter().map(|end| *end as i64).collect();
        let is_whole = whole.iter().zip(&brackets).all(|(whole, given)| *whole as f64 == *given);
        let rises = whole.windows(2).all(|two| two[0] < two[1]);
        if periods.is_some() || !is_whole || !rises || whole.first().is_none_or(|first| *first < 1)
        {
            return Err(misuse(
                function,
                "brackets: whole numbers that rise, from 1 on, are needed, and no periods beside them",
            )
            .hint("brackets => ARRAY[1, 3, 7, 30]: the first period after the start, the second and third, the fourth to the seventh, ..."));
        }
        Ok(Self::Brackets([&[0], whole.as_slice()].concat()))
    }

    /// Those that are shown.
    fn numbers(&self) -> String {
        let numbers: Vec<String> = match self {
            Self::Each(last) => (0..=*last).map(|n| n.to_string()).collect(),
            Self::Brackets(ends) => ends.iter().map(i64::to_string).collect(),
        };
        numbers.join(", ")
    }

    /// The first period of what is called `period`.
    fn first(&self, period: &str) -> String {
        match self {
            Self::Each(_) => period.to_owned(),
            Self::Brackets(ends) => {
                let cases =
                    ends.windows(2).map(|two| format!("WHEN {} THEN {}", two[1], two[0] + 1));
                format!("CASE {period} {} ELSE 0 END", cases.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// What is added up, of `'sum(x)'`.
fn summed(function: &str, text: &str) -> Result<String> {
    let of = text.strip_prefix("sum(").and_then(|rest| rest.strip_suffix(')'));
    let of = of.ok_or_else(|| {
        misuse(function, format!("measure => '{text}': allowed are users, sum(x)"))
    })?;
    // A float is cast row by row, so that no order of rows changes the sum.
    Ok(format!("CAST({} AS DECIMAL(38, 6))", parse_expression(of)?))
}
