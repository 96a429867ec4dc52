//! `retention_matrix(events, ...)`: of the customers who started in a period, how many came back in the later ones.

use super::steps::Step;
use super::{Request, all_known, column_list, misuse};
use crate::dialect::{literal, parse_expression, quoted};
use crate::error::Result;

/// Writes the report over the relation. Rules: research "behaviour", section 5; `docs/retention_matrix.md` states them.
pub(super) fn select(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.needed_column("time", &["occurred_at", "ordered_at"])?;
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

    let tag = request.tag;
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
    let last_day = as_of.unwrap_or_else(|| format!("(SELECT max({day}) FROM {rows})"));
    let index = format!("period_index({day}, {unit})");
    let begun = format!(
        "SELECT {names}, {index} AS __p, min({instant}) AS __t FROM {rows} AND {start} GROUP BY {names}, {index}"
    );
    let starts = match kind {
        "first_time" => format!(
            "SELECT {names}, min(__p) AS __p, min(__t) AS __t FROM ({begun}) AS __all GROUP BY {names}"
        ),
        _ => begun,
    };
    let of_rows = value.as_deref().unwrap_or("CAST(NULL AS DECIMAL(38, 6))");
    // Who has one start is looked up row by row: most rows may be of nobody who started. Who may have many returns once a period.
    let backs = match interval {
        _ if interval != "24h" && kind == "first_time" => format!(
            "SELECT {names}, {index} AS __p, 1 AS __n, {of_rows} AS __v FROM {rows} AND {back}"
        ),
        "24h" => format!(
            "SELECT {names}, {instant} AS __t, 1 AS __n, {of_rows} AS __v FROM {rows} AND {back}"
        ),
        _ => format!(
            "SELECT {names}, {index} AS __p, count(*) AS __n, sum({of_rows}) AS __v FROM {rows} AND {back} GROUP BY {names}, {index}"
        ),
    };
    let mut range = "true".to_owned();
    if let Some(from) = from {
        range.push_str(&format!(" AND __p >= period_index(CAST({from} AS DATE), {unit})"));
    }
    if let Some(to) = to {
        range.push_str(&format!(" AND __p <= period_index(CAST({to} AS DATE), {unit})"));
    }
    let same = customer
        .iter()
        .map(|c| format!("__s.{c} = __b.{c}", c = quoted(c)))
        .collect::<Vec<_>>()
        .join(" AND ");
    let keys = customer.iter().map(|c| format!("__s.{}", quoted(c))).collect::<Vec<_>>().join(", ");
    let (later, offset) = match interval {
        "24h" => (
            "__b.__t >= __s.__t",
            "CAST(floor(interval_us(__b.__t - __s.__t) / CAST(86400000000 AS DOUBLE)) AS BIGINT)",
        ),
        _ => ("__b.__p >= __s.__p", "__b.__p - __s.__p"),
    };
    let (starts_name, counts_name) = (format!("__starts_{tag}"), format!("__counts_{tag}"));
    // One row a customer, cohort and period of return.
    let returns = format!(
        "SELECT {names}, __cohort, __period, __v FROM ( \
           SELECT {keys}, __s.__p AS __cohort, {period} AS __period, sum(__b.__n) AS __n, sum(__b.__v) AS __v \
           FROM {starts_name} AS __s JOIN ({backs}) AS __b ON {same} AND {later} GROUP BY {keys}, __s.__p, {period}) AS __pairs \
         WHERE __n >= {min_events} AND __period IS NOT NULL",
        period = periods.of(offset),
    );
    // For on_or_after only the last return counts, for every period up to it.
    let returns = match retained {
        "on_or_after" => format!(
            "SELECT __cohort, __last AS __period, count(*) AS __users, sum(__v) AS __v FROM ( \
               SELECT __cohort, max(__period) AS __last, sum(__v) AS __v FROM ({returns}) AS __returns GROUP BY {names}, __cohort) AS __lasts \
             GROUP BY __cohort, __last"
        ),
        _ => format!(
            "SELECT __cohort, __period, count(*) AS __users, sum(__v) AS __v FROM ({returns}) AS __returns GROUP BY __cohort, __period"
        ),
    };
    let reach = match retained {
        "on_or_after" => "__c.__period >= __g.period",
        _ => "__c.__period = __g.period",
    };
    let total = "coalesce(sum(__c.__users), 0)";
    // What is measured, for each customer of the cohort.
    let measured = match &value {
        None => format!("CAST({total} AS DOUBLE)"),
        Some(_) => "CAST(coalesce(sum(__c.__v), 0) AS DOUBLE)".to_owned(),
    };
    Ok(format!(
        "WITH {starts_name} AS (SELECT {names}, __p, __t FROM ({starts}) AS __started WHERE {range}), \
         {counts_name} AS ({returns}) \
         SELECT period_start(__g.__p, {unit}) AS cohort, __g.__size AS cohort_size, __g.period, \
           CAST({total} AS BIGINT) AS retained, \
           {measured} / nullif(__g.__size, 0) AS rate, \
           period_start(__g.__p + __g.period + {after}, {unit}) <= {last_day} + INTERVAL '1 day' AS complete \
         FROM (SELECT __p, count(*) AS __size, unnest(ARRAY[{numbers}]) AS period FROM {starts_name} GROUP BY __p) AS __g \
         LEFT JOIN {counts_name} AS __c ON __c.__cohort = __g.__p AND {reach} \
         WHERE period_start(__g.__p + {first}, {unit}) <= {last_day} \
         GROUP BY __g.__p, __g.__size, __g.period",
        numbers = periods.numbers(),
        // The last customer of a day starts at its end.
        after = if interval == "24h" { 2 } else { 1 },
        first = periods.first("__g.period"),
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

    /// What a period, counted from the start, belongs to; NULL after the last.
    fn of(&self, offset: &str) -> String {
        match self {
            Self::Each(last) => format!("CASE WHEN {offset} <= {last} THEN {offset} END"),
            Self::Brackets(ends) => {
                let cases = ends.iter().map(|end| format!("WHEN {offset} <= {end} THEN {end}"));
                format!("CASE {} END", cases.collect::<Vec<_>>().join(" "))
            }
        }
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
