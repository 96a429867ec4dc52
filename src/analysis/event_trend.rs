//! `event_trend(events, ...)`: a measure by period, and how it changed.

use clientele_tree::{Node, Tree};
use datafusion::sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::buckets::Buckets;
use super::{Request, all_known, column_list, misuse};
use crate::dialect::{parse_expression, quoted};
use crate::error::Result;

/// What other values of the breakdown are called.
const OTHER: &str = "(other)";

/// Writes the report over the relation; `docs/event_trend.md` states its rules.
pub(super) fn select(mut request: Request) -> Result<String> {
    let time = request.time_column(&["occurred_at", "ordered_at"])?;
    let measure = request.arguments.text("measure")?.unwrap_or_else(|| "count".to_owned());
    let customer = match measure.as_str() {
        "users" | "per_user" => Some(request.customer()?),
        // Asked for all the same, so that it is a known argument.
        _ => request.customer().ok(),
    };
    let interval = request.arguments.word("interval", &Buckets::UNITS)?;
    let breakdown = request.column("breakdown", &[])?;
    let top = request.arguments.number("top", 1..=1000)?.unwrap_or(10);
    let compare = request.arguments.word("compare", &["previous", "year"])?;
    let from = request.arguments.expression("from").map(|from| format!("CAST({from} AS DATE)"));
    let to = request.arguments.expression("to").map(|to| format!("CAST({to} AS DATE)"));
    let timezone = request.timezone()?;
    let to = match to {
        Some(to) => Some(to),
        None => request.as_of()?,
    };
    request.arguments.finish()?;
    let measure = Measure::read(request.function, &measure, customer.as_deref())?;

    let day = format!("local_date({}, {timezone})", quoted(&time));
    let mut rows = format!("{} AS __r WHERE {} IS NOT NULL", request.relation, quoted(&time));
    if let Some(to) = &to {
        rows.push_str(&format!(" AND {day} <= {to}"));
    }
    let last_day = to.clone().unwrap_or_else(|| format!("(SELECT max({day}) FROM {rows})"));
    let buckets = Buckets::new(interval, last_day);
    // How many periods before is compared with, and how many days at most lie between.
    let length = buckets.days();
    let (lags, reach) = match (compare, interval) {
        ("year", "day") => (366, 368),
        ("year", "week") => (52, 52 * 7 + 7),
        ("year", "month") => (12, 366 + length),
        ("year", "quarter") => (4, 366 + length),
        _ => (1, 2 * length),
    };
    let (first, is_counted) = match &from {
        Some(from) => {
            rows.push_str(&format!(" AND {day} >= {from} - INTERVAL '{reach} days'"));
            let first = buckets.index(from);
            let is_counted = format!("({day} >= {from} OR {} < {first})", buckets.index(&day));
            (first, is_counted)
        }
        None => ("min(__i) OVER ()".to_owned(), "true".to_owned()),
    };
    let last = match &to {
        Some(to) => buckets.index(to),
        None => "max(__i) OVER ()".to_owned(),
    };
    let (label, relation) = match &breakdown {
        None => ("CAST(NULL AS TEXT)".to_owned(), rows.clone()),
        Some(column) => {
            let text = format!("CAST({} AS TEXT)", quoted(column));
            let asked = match &from {
                Some(from) => format!("{rows} AND {day} >= {from}"),
                None => rows.clone(),
            };
            let kept = format!(
                "SELECT array_agg(__k) FROM (SELECT coalesce('=' || {text}, '') AS __k FROM {asked} \
                 GROUP BY 1 ORDER BY {} DESC NULLS LAST, 1 LIMIT {top}) AS __top",
                measure.value
            );
            let label = format!(
                "CASE WHEN array_has(({kept}), coalesce('=' || {text}, '')) THEN {text} ELSE '{OTHER}' END"
            );
            (label, rows.clone())
        }
    };
    let value = &measure.value;
    let by_period = format!(
        "SELECT {} AS __i, {label} AS __b, {value} AS __v, max({day}) AS __hi FROM {relation} AND {is_counted} GROUP BY 1, 2",
        buckets.index(&day)
    );
    let bounded = format!(
        "SELECT *, {first} AS __first, {last} AS __last, min(__i) OVER () AS __earliest, max(__hi) OVER () AS __latest, \
           row_number() OVER (PARTITION BY __b ORDER BY __i) AS __n, lead(__i) OVER (PARTITION BY __b ORDER BY __i) AS __next \
         FROM ({by_period}) AS __by_period"
    );
    // From each period to before the next one of the same value, so that periods without rows are there, too.
    let filled = format!(
        "SELECT *, unnest(__series(CASE __n WHEN 1 THEN least(__i, __first - {lags}) ELSE __i END, \
           coalesce(__next - 1, greatest(__i, __last)))) AS __j FROM ({bounded}) AS __bounded"
    );
    let nothing = match (measure.is_zero_without_rows, &from) {
        (false, _) => "CAST(NULL AS DOUBLE)",
        (true, Some(_)) => "CAST(0 AS DOUBLE)",
        // Before the first of all rows nothing is known.
        (true, None) => "CASE WHEN __j >= __earliest THEN CAST(0 AS DOUBLE) END",
    };
    let lag = |n: i64| format!("lag(__value, {n}) OVER (PARTITION BY __b ORDER BY __j)");
    let previous = match (compare, interval) {
        ("year", "day") => {
            let a_year_ago =
                "period_index(CAST(period_start(__j, 'day') - INTERVAL '1 year' AS DATE), 'day')";
            format!("CASE __j - {a_year_ago} WHEN 365 THEN {} ELSE {} END", lag(365), lag(366))
        }
        _ => lag(lags),
    };
    let begins = buckets.start("__j");
    let ends = buckets.start("__j + 1");
    let is_whole = match &from {
        Some(from) => format!("{begins} >= {from} AND "),
        None => String::new(),
    };
    let shown = if measure.is_zero_without_rows {
        "coalesce(__value, CAST(0 AS DOUBLE))"
    } else {
        "__value"
    };
    let latest = to.unwrap_or_else(|| "__latest".to_owned());
    Ok(format!(
        "SELECT {begins} AS bucket, __b AS breakdown, {shown} AS value, __previous AS previous, \
           ({shown} - __previous) / nullif(abs(__previous), CAST(0 AS DOUBLE)) AS change, \
           {is_whole}{ends} <= {latest} + INTERVAL '1 day' AS complete \
         FROM (SELECT *, {previous} AS __previous FROM ( \
           SELECT *, CASE WHEN __j = __i THEN CAST(__v AS DOUBLE) ELSE {nothing} END AS __value FROM ({filled}) AS __filled) AS __valued) AS __all \
         WHERE __j >= __first AND __j <= __last"
    ))
}

/// What is measured.
struct Measure {
    /// An aggregate over rows.
    value: String,
    /// Whether a period without rows has 0, or no value.
    is_zero_without_rows: bool,
}

impl Measure {
    fn read(function: &str, text: &str, customer: Option<&[String]>) -> Result<Self> {
        let users = || {
            let customer = customer.unwrap_or_default();
            let key = match customer {
                [column] => quoted(column),
                columns => format!("struct({})", column_list(columns)),
            };
            format!("count(DISTINCT CASE WHEN {} THEN {key} END)", all_known(customer))
        };
        match text {
            "count" | "?" => {
                return Ok(Self { value: "count(*)".to_owned(), is_zero_without_rows: true });
            }
            "users" => return Ok(Self { value: users(), is_zero_without_rows: true }),
            "per_user" => {
                let value = format!("CAST(count(*) AS DOUBLE) / nullif({}, 0)", users());
                return Ok(Self { value, is_zero_without_rows: false });
            }
            _ => {}
        }
        let unknown = || {
            misuse(
                function,
                format!(
                    "measure => '{text}': allowed are count, users, per_user, sum(x), avg(x), min(x), max(x), median(x), p1(x) to p99(x)"
                ),
            )
        };
        let Ok(Expr::Function(call)) = parse_expression(text) else { return Err(unknown()) };
        let FunctionArguments::List(list) = &call.args else { return Err(unknown()) };
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(of))] = list.args.as_slice() else {
            return Err(unknown());
        };
        // What else may stand with a call would be left out without a word.
        let is_more = call.filter.is_some()
            || call.over.is_some()
            || call.null_treatment.is_some()
            || !call.within_group.is_empty()
            || list.duplicate_treatment.is_some()
            || !list.clauses.is_empty();
        if is_more {
            return Err(unknown());
        }
        let is_nested = of.any(|node| matches!(node, Node::Query(_)));
        let name = call.name.to_string().to_lowercase();
        let aggregate = match name.as_str() {
            _ if is_nested => return Err(unknown()),
            // A float is cast row by row, so that no order of rows changes the sum.
            "sum" => format!("sum(CAST({of} AS DECIMAL(38, 6)))"),
            "avg" | "min" | "max" | "median" => format!("{name}({of})"),
            _ => match name.strip_prefix('p').and_then(|n| n.parse::<u32>().ok()) {
                Some(n) if (1..100).contains(&n) => {
                    format!(
                        "percentile_cont(0.{n:02}) WITHIN GROUP (ORDER BY CAST({of} AS DOUBLE))"
                    )
                }
                _ => return Err(unknown()),
            },
        };
        Ok(Self {
            value: format!("CAST({aggregate} AS DOUBLE)"),
            is_zero_without_rows: name == "sum",
        })
    }
}
