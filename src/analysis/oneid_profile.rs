//! `oneid_profile(customers, ...)` and `oneid_benefits(benefits, ...)`: what all records of a customer say together.

use arrow::datatypes::DataType;

use super::{Request, all_known, column_list, misuse};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// How the value of an attribute is chosen from those of the records.
enum Choice {
    MostRecent,
    Oldest,
    MostTrusted,
}

/// Writes the profile over the relation. Rules: research "oneid", section 2.7; `docs/oneid_profile.md` states them.
pub(super) fn profile(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.column("time", &["updated_at", "registered_at"])?;
    let level = request.column("level", &["member_level"])?;
    let points = request.column("points", &["points"])?;
    let attributes = request.arguments.texts_so_far("attributes")?;
    let trust = request.arguments.texts_so_far("trust")?.unwrap_or_default();
    let levels = request.arguments.texts_so_far("levels")?.unwrap_or_default();
    let level_map = request.arguments.texts_so_far("level_map")?.unwrap_or_default();
    let rates = request.arguments.texts_so_far("rates")?.unwrap_or_default();
    request.arguments.finish()?;
    for needed in ["source", "record_id"] {
        request.existing("records", needed)?;
    }

    let taken: Vec<&str> = { customer.iter().map(String::as_str) }
        .chain(["source", "record_id"])
        .chain([&time, &level, &points].into_iter().flatten().map(String::as_str))
        .collect();
    let attributes = match attributes {
        Some(given) if given.is_empty() => {
            return Err(misuse(
                request.function,
                "attributes => a parameter: its columns are not known then",
            )
            .hint("write them out: attributes => ARRAY['name', 'city: most_trusted']"));
        }
        Some(given) => given,
        None => {
            let all = request.columns.names().into_iter();
            all.filter(|name| !taken.contains(&name.as_str()) && name != "one_id").collect()
        }
    };
    let order = Order { time: time.as_deref(), trust: &trust };
    let mut columns = Vec::new();
    for attribute in &attributes {
        let (name, choice) = chosen(&request, attribute, &trust)?;
        request.existing("attributes", name)?;
        if ["records", "sources", "level", "points", "review"].contains(&name) {
            return Err(misuse(
                request.function,
                format!("attributes => '{name}': the profile has a column of that name"),
            ));
        }
        let (value, is_known) = cleaned(name, request.columns.data_type(name));
        let by = order.of(&choice);
        columns.push(format!(
            "first_value({value} ORDER BY {by}) FILTER (WHERE {is_known}) AS {}",
            quoted(name)
        ));
    }

    let function = request.function;
    let names = column_list(&customer);
    let level_number = level_number(function, level.as_deref(), &levels, &level_map)?;
    let level_name: String = { levels.iter().enumerate() }
        .map(|(at, name)| format!(" WHEN {} THEN {}", at + 1, literal(name)))
        .collect();
    let level_name = if levels.is_empty() {
        "CAST(NULL AS TEXT)".to_owned()
    } else {
        format!("CASE max(__level){level_name} END")
    };
    let unknown = level.as_ref().map_or("CAST(NULL AS TEXT)".to_owned(), |level| {
        format!("string_agg(DISTINCT source || ' ' || {}, ', ' ORDER BY source || ' ' || {0}) FILTER (WHERE __level = 0)", quoted(level))
    });
    let rate = rate(function, &rates)?;
    let amount = points.map_or("CAST(NULL AS DECIMAL(38, 6))".to_owned(), |points| {
        format!("CAST({} AS DECIMAL(38, 6))", quoted(&points))
    });
    columns.extend([
        format!("{level_name} AS level"),
        "CASE WHEN bool_or(__amount <> 0 AND __rate IS NULL) THEN NULL \
         ELSE CAST(floor(sum(__amount * __rate)) AS BIGINT) END AS points".to_owned(),
        format!(
            "nullif(concat_ws('; ', 'unknown level: ' || {unknown}, 'no rate for points of: ' || \
             string_agg(DISTINCT source, ', ' ORDER BY source) FILTER (WHERE __amount <> 0 AND __rate IS NULL)), '') AS review"
        ),
    ]);
    Ok(format!(
        "SELECT {names}, count(*) AS records, string_agg(DISTINCT source, ',' ORDER BY source) AS sources, {} \
         FROM (SELECT *, {level_number} AS __level, {amount} AS __amount, {rate} AS __rate FROM {} AS __r WHERE {}) AS __records \
         GROUP BY {names}",
        columns.join(", "),
        request.relation,
        all_known(&customer),
    ))
}

/// Writes the union of the benefits of each customer's records: of one benefit the later end counts, and no end most.
pub(super) fn benefits(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let benefit = request.needed_column("benefit", &["benefit"])?;
    let until = request.needed_column("until", &["valid_until"])?;
    request.arguments.finish()?;
    let names = column_list(&customer);
    let (name, end) = (quoted(&benefit), quoted(&until));
    Ok(format!(
        "SELECT {names}, {name}, CASE WHEN bool_or({end} IS NULL) THEN NULL ELSE max({end}) END AS {end}, count(*) AS records \
         FROM {} AS __r WHERE {} AND {name} IS NOT NULL GROUP BY {names}, {name}",
        request.relation,
        all_known(&customer),
    ))
}

/// `name: rule`, and what the rule is when none is given.
fn chosen<'a>(
    request: &Request,
    attribute: &'a str,
    trust: &[String],
) -> Result<(&'a str, Choice)> {
    let usual = if trust.is_empty() { "most_recent" } else { "most_trusted" };
    let (name, rule) = attribute.split_once(": ").unwrap_or((attribute, usual));
    let choice = match rule.trim() {
        "most_recent" => Choice::MostRecent,
        "oldest" => Choice::Oldest,
        "most_trusted" if trust.is_empty() => {
            return Err(misuse(
                request.function,
                format!("{attribute}: no source is trusted more than another"),
            )
            .hint("trust => ARRAY['pos', 'app'], the most trusted first"));
        }
        "most_trusted" => Choice::MostTrusted,
        other => {
            return Err(misuse(
                request.function,
                format!("{name}: {other}: allowed are most_recent, oldest, most_trusted"),
            ));
        }
    };
    Ok((name, choice))
}

/// The value of a column as a profile has it, and when there is one.
fn cleaned(name: &str, data_type: Option<&DataType>) -> (String, String) {
    let column = quoted(name);
    let is_text = matches!(
        data_type,
        Some(DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..))
    );
    match name {
        _ if !is_text => (column.clone(), format!("{column} IS NOT NULL")),
        "phone" | "email" | "id_card" | "imei" => {
            let value = format!("norm_id({}, {column})", literal(name));
            (value.clone(), format!("{value} IS NOT NULL"))
        }
        // "n/a", "-" and their like are no values.
        _ => (
            format!("trim({column})"),
            format!(
                "{column} IS NOT NULL AND coalesce(id_reject_reason('text', {column}), '') <> 'null'"
            ),
        ),
    }
}

/// In what order the records are asked for a value.
struct Order<'a> {
    time: Option<&'a str>,
    trust: &'a [String],
}

impl Order<'_> {
    fn of(&self, choice: &Choice) -> String {
        let mut by = Vec::new();
        if matches!(choice, Choice::MostTrusted) {
            let ranks: String = { self.trust.iter().enumerate() }
                .map(|(at, source)| format!(" WHEN {} THEN {at}", literal(source)))
                .collect();
            by.push(format!("CASE source{ranks} ELSE {} END", self.trust.len()));
        }
        if let Some(time) = self.time {
            let direction = if matches!(choice, Choice::Oldest) { "ASC" } else { "DESC" };
            by.push(format!("{} {direction} NULLS LAST", quoted(time)));
        }
        // So that the answer is one, whatever the order of rows.
        by.extend(["source".to_owned(), "record_id".to_owned()]);
        by.join(", ")
    }
}

/// The place of a record's level on the scale, from 1; 0 for one that is not on it.
fn level_number(
    function: &str,
    level: Option<&str>,
    levels: &[String],
    level_map: &[String],
) -> Result<String> {
    let (Some(level), false) = (level, levels.is_empty()) else {
        if levels.is_empty() && level_map.is_empty() {
            return Ok("CAST(NULL AS INT)".to_owned());
        }
        let missing = if levels.is_empty() { "levels" } else { "level" };
        return Err(misuse(function, format!("{missing} is missing"))
            .hint("level => 'member_level', levels => ARRAY['bronze', 'silver', 'gold'], the lowest first"));
    };
    let place = |name: &str| levels.iter().position(|known| known == name).map(|at| at + 1);
    let text = format!("trim(CAST({} AS TEXT))", quoted(level));
    let mut cases = format!("CASE WHEN coalesce({text}, '') = '' THEN NULL");
    for entry in level_map {
        let parts = entry.rsplit_once(": ").and_then(|(of, to)| Some((of.split_once('/')?, to)));
        let Some(((source, theirs), to)) = parts else {
            return Err(misuse(
                function,
                format!("level_map => '{entry}' is not 'source/level: level'"),
            ));
        };
        let Some(at) = place(to.trim()) else {
            return Err(misuse(
                function,
                format!("level_map => '{entry}': {to} is none of levels"),
            ));
        };
        cases.push_str(&format!(
            " WHEN source = {} AND {text} = {} THEN {at}",
            literal(source.trim()),
            literal(theirs.trim())
        ));
    }
    for (at, name) in levels.iter().enumerate() {
        cases.push_str(&format!(" WHEN {text} = {} THEN {}", literal(name), at + 1));
    }
    cases.push_str(" ELSE 0 END");
    Ok(cases)
}

/// What a point of a record's source is worth; NULL where that is not known.
fn rate(function: &str, rates: &[String]) -> Result<String> {
    if rates.is_empty() {
        return Ok("CAST(1 AS DECIMAL(18, 6))".to_owned());
    }
    let mut cases = "CASE source".to_owned();
    for entry in rates {
        let parts = entry.rsplit_once(": ").filter(|(_, rate)| is_decimal(rate.trim()));
        let Some((source, rate)) = parts else {
            return Err(misuse(
                function,
                format!("rates => '{entry}' is not 'source: rate', as in 'tmall: 0.5'"),
            )
            .detail("a rate has at most 12 digits before and 6 after the point"));
        };
        cases.push_str(&format!(
            " WHEN {} THEN CAST('{}' AS DECIMAL(18, 6))",
            literal(source.trim()),
            rate.trim()
        ));
    }
    cases.push_str(" END");
    Ok(cases)
}

fn is_decimal(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    digits(whole, 12) && digits(part, 6)
}
