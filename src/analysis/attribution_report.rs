//! `attribution_report(events, ...)`: which channels get the credit for conversions, by one model or by all.

use clientele_udfs::journey::attribution::model_names;
use datafusion::sql::sqlparser::ast::Expr;

use super::steps::{Step, any_of};
use super::{Request, all_known, column_list, misuse};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// Writes the report over the relation; `docs/attribution_report.md` states its rules.
pub(super) fn select(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.time_column(&["occurred_at", "ordered_at"])?;
    let event = request.column("event", &["event"])?;
    let channel = request.needed_column("channel", &["channel"])?;
    let value = match request.column("value", &[])? {
        Some(value) => Some(value),
        None => request.column("amount", &["amount"])?,
    };
    let key = match request.column("key", &[])? {
        Some(key) => Some(key),
        None => request.column("order_id", &["order_id"])?,
    };
    let conversion = request.arguments.texts("conversion")?;
    let touch = request.arguments.texts("touch")?;
    let refund = request.arguments.texts("refund")?;
    let models = request.arguments.texts_so_far("model")?.unwrap_or_default();
    let span = |given: Option<Expr>, default: &str| {
        given.map_or(default.to_owned(), |span| span.to_string())
    };
    let lookback = span(request.arguments.expression("lookback"), "INTERVAL '30 days'");
    let half_life = span(request.arguments.expression("half_life"), "CAST(NULL AS INTERVAL)");
    let weights = request.arguments.numbers("weights")?;
    let order = request.arguments.number("markov_order", 1..=5)?.unwrap_or(1);
    let direct = request.arguments.texts("direct")?;
    let from = request.arguments.expression("from");
    let to = request.arguments.expression("to");
    let timezone = request.timezone()?;
    request.arguments.finish()?;

    let function = request.function;
    let Some(conversion) = conversion else {
        return Err(misuse(function, "the conversion is missing").hint("conversion => 'pay'"));
    };
    let models = chosen(function, models, weights.is_some())?;
    let weights = match weights.as_deref() {
        None => "1.0, 1.0, 1.0".to_owned(),
        Some([first, between, last]) if *first + *between + *last > 0.0 => {
            format!("{first:?}, {between:?}, {last:?}")
        }
        Some(_) => {
            return Err(misuse(function, "weights: three are needed, one of them above zero")
                .hint("weights => ARRAY[0.4, 0.2, 0.4]: the first touch, those between together, the last"));
        }
    };
    if refund.is_some() && key.is_none() {
        return Err(misuse(function, "refund: without a key nothing says what was refunded")
            .hint("name the column of the order: key => 'order_id'"));
    }
    let conditions = |texts: &[String]| -> Result<String> {
        let steps = texts.iter().map(|text| Step::parse(text, event.as_deref()));
        Ok(any_of(&steps.collect::<Result<Vec<_>>>()?))
    };
    let is_conversion = conditions(&conversion)?;
    let known = format!("{} IS NOT NULL", quoted(&channel));
    let is_touch = match &touch {
        Some(touch) => format!("({} AND {known})", conditions(touch)?),
        None => known,
    };
    let is_refund = refund.as_deref().map_or(Ok("false".to_owned()), conditions)?;
    let day = format!("local_date({}, {timezone})", quoted(&time));
    let mut is_asked = is_conversion.clone();
    let mut rows = format!(
        "{} AND {} IS NOT NULL AND ({is_conversion} OR {is_touch} OR {is_refund})",
        all_known(&customer),
        quoted(&time)
    );
    // What an order is worth, and of which day it is, its rows before and after say, too; and whether a touch has led to anything.
    let mut since = "CAST(NULL AS TIMESTAMP)".to_owned();
    if let Some(from) = from {
        is_asked.push_str(&format!(" AND {day} >= CAST({from} AS DATE)"));
        since = format!("timezone({timezone}, CAST(CAST({from} AS DATE) AS TIMESTAMP))");
        // Touches before count, as far as any conversion looks back.
        rows.push_str(&format!(
            " AND ({day} >= CAST({from} AS DATE) - {lookback} - INTERVAL '1 day' OR {is_conversion} OR {is_refund})"
        ));
    }
    if let Some(to) = to {
        is_asked.push_str(&format!(" AND {day} <= CAST({to} AS DATE)"));
        rows.push_str(&format!(
            " AND ({day} <= CAST({to} AS DATE) OR {is_conversion} OR {is_refund})"
        ));
    }
    let direct = direct
        .unwrap_or_else(|| ["direct", "Direct", "(direct)", "(none)"].map(str::to_owned).to_vec());
    let direct: Vec<String> = direct.iter().map(|channel| literal(channel)).collect();
    let text = |column: &Option<String>| match column {
        Some(column) => format!("CAST({} AS TEXT)", quoted(column)),
        None => "CAST(NULL AS TEXT)".to_owned(),
    };
    let money = |column: &Option<String>| match column {
        Some(column) => format!("CAST({} AS DECIMAL(38, 6))", quoted(column)),
        None => "CAST(NULL AS DECIMAL(38, 6))".to_owned(),
    };
    let shown_value = match value {
        Some(_) => "get_field(__a, 'value')",
        None => "CAST(NULL AS DECIMAL(38, 6))",
    };
    Ok(format!(
        "SELECT get_field(__a, 'channel') AS channel, get_field(__a, 'model') AS model, \
           get_field(__a, 'conversions') AS conversions, {shown_value} AS value, \
           get_field(__a, 'share') AS share, get_field(__a, 'removal_effect') AS removal_effect \
         FROM (SELECT unnest(__attribution({order}, __c)) AS __a FROM ( \
           SELECT __credits({models}, {lookback}, {half_life}, ARRAY[{weights}], {order}, {is_keyed}, ARRAY[{direct}], {since}, \
             {time}, CASE WHEN {is_touch} THEN CAST({channel} AS TEXT) END, \
             CASE WHEN {is_refund} THEN 2 WHEN {is_asked} THEN 1 WHEN {is_conversion} THEN 3 ELSE 0 END, {key}, {value}) AS __c \
           FROM {relation} AS __r WHERE {rows} GROUP BY {names}) AS __customers) AS __all",
        models = literal(&models.join(",")),
        is_keyed = key.is_some(),
        direct = direct.join(", "),
        time = quoted(&time),
        channel = quoted(&channel),
        key = text(&key),
        value = money(&value),
        relation = request.relation,
        names = column_list(&customer),
    ))
}

/// The models that are asked for; `all` is each that has what it needs.
fn chosen(function: &str, models: Vec<String>, has_weights: bool) -> Result<Vec<String>> {
    if models.is_empty() {
        return Ok(vec!["last".to_owned()]);
    }
    let known = model_names();
    let mut chosen = Vec::new();
    for model in models {
        match model.as_str() {
            "all" => chosen.extend(
                known.iter().filter(|m| has_weights || **m != "custom").map(|m| (*m).to_owned()),
            ),
            "custom" if !has_weights => {
                return Err(misuse(function, "model => 'custom': its weights are missing").hint(
                    "weights => ARRAY[0.4, 0.2, 0.4]: the first touch, those between together, the last",
                ));
            }
            named if known.contains(&named) => chosen.push(model),
            other => {
                return Err(misuse(
                    function,
                    format!("model => '{other}': allowed are all, {}", known.join(", ")),
                ));
            }
        }
    }
    Ok(chosen)
}
