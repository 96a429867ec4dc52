//! `audience_portrait`, `audience_lookalike` and `audience_diff`: who is in an audience, who is like them, and who came and went.

use super::{Request, column_list, misuse, relation_name, same_customer};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// Customers with their attributes, and whether they are in the audience, one row a customer and attribute.
struct Profiles {
    names: Vec<String>,
    attributes: Vec<String>,
    sql: String,
}

impl Profiles {
    fn read(request: &mut Request) -> Result<Self> {
        let names = request.customer()?;
        let audience = request.arguments.text("audience")?;
        let attributes = request.arguments.texts_so_far("attributes")?;
        let function = request.function;
        let is_described = request.arguments.is_described();
        let Some(audience) = audience.or_else(|| is_described.then(|| "?".to_owned())) else {
            return Err(misuse(function, "the audience is missing")
                .hint("audience => 'vip', a relation with the column that names the customer"));
        };
        let Some(attributes) = attributes else {
            return Err(misuse(function, "the attributes are missing")
                .hint("attributes => ARRAY['gender', 'city'], columns of the relation"));
        };
        for (at, attribute) in attributes.iter().enumerate() {
            request.existing("attributes", attribute)?;
            if attributes[..at].contains(attribute) {
                return Err(misuse(function, format!("attributes: {attribute} is named twice")));
            }
        }
        let member = request.arguments.text("member")?;
        if member.is_some() && names.len() > 1 {
            return Err(misuse(
                function,
                format!("member names one column, and the customer is {}", names.join(", ")),
            ));
        }
        // Only described: any audience has the same columns.
        let members = match audience.as_str() {
            "?" => format!("(SELECT * FROM {} WHERE false)", request.relation),
            audience => relation_name(audience),
        };
        let columns: Vec<String> = { attributes.iter().enumerate() }
            .map(|(at, attribute)| format!("CAST(__r.{} AS TEXT) AS __a{at}", quoted(attribute)))
            .collect();
        let own: Vec<String> = names.iter().map(|name| format!("__r.{}", quoted(name))).collect();
        let known: Vec<String> =
            names.iter().map(|name| format!("__r.{} IS NOT NULL", quoted(name))).collect();
        // The audience may call the customer otherwise.
        let in_audience = match &member {
            Some(member) => format!("{} AS {}", quoted(member), quoted(&names[0])),
            None => column_list(&names),
        };
        let people = format!(
            "SELECT {own}, __m.__is_in IS NOT NULL AS __is_in{comma}{columns} FROM {relation} AS __r \
             LEFT JOIN (SELECT DISTINCT {in_audience}, true AS __is_in FROM {members} AS __members) AS __m ON {same} WHERE {known}",
            own = own.join(", "),
            comma = if columns.is_empty() { "" } else { ", " },
            columns = columns.join(", "),
            relation = request.relation,
            same = same_customer(&names, "__m", "__r"),
            known = known.join(" AND "),
        );
        let places: Vec<String> =
            (0..attributes.len().max(1)).map(|at| format!("({at})")).collect();
        let value: Vec<String> =
            (0..attributes.len()).map(|at| format!("WHEN {at} THEN __a{at}")).collect();
        let value = match value.is_empty() {
            true => "CAST(NULL AS TEXT)".to_owned(),
            false => format!("CASE __at {} END", value.join(" ")),
        };
        let attribute: Vec<String> = { attributes.iter().enumerate() }
            .map(|(at, attribute)| format!("WHEN {at} THEN {}", literal(attribute)))
            .collect();
        let attribute = match attribute.is_empty() {
            true => "CAST(NULL AS TEXT)".to_owned(),
            false => format!("CASE __at {} END", attribute.join(" ")),
        };
        let sql = format!(
            "SELECT {names}, __is_in, __at, {attribute} AS attribute, {value} AS value \
             FROM ({people}) AS __people CROSS JOIN (VALUES {places}) AS __places(__at)",
            names = column_list(&names),
            places = places.join(", "),
        );
        Ok(Self { names, attributes, sql })
    }
}

/// Writes how often each value of an attribute is in the audience, and among all.
pub(super) fn portrait(mut request: Request) -> Result<String> {
    let profiles = Profiles::read(&mut request)?;
    request.arguments.finish()?;
    let counted = format!(
        "SELECT attribute, __at, value, count(*) FILTER (WHERE __is_in) AS members, count(*) AS base \
         FROM ({}) AS __profiles GROUP BY attribute, __at, value",
        profiles.sql
    );
    let totals = format!(
        "SELECT *, CAST(sum(members) OVER (PARTITION BY __at) AS DOUBLE) AS __members, CAST(sum(base) OVER (PARTITION BY __at) AS DOUBLE) AS __base \
         FROM ({counted}) AS __counted"
    );
    // Members against all others: the base holds the audience, and cannot be compared with a part of itself.
    let z = "(members / nullif(__members, 0) - (base - members) / nullif(__base - __members, 0)) \
             / nullif(sqrt(base / __base * (1 - base / __base) * (1 / nullif(__members, 0) + 1 / nullif(__base - __members, 0))), 0)";
    Ok(format!(
        "SELECT attribute, value, members, share, base, base_share, tgi, z, normal_p_value(z) AS p_value FROM \
           (SELECT attribute, value, members, members / nullif(__members, 0) AS share, base, base / nullif(__base, 0) AS base_share, \
              tgi(members, __members, base, __base) AS tgi, {z} AS z FROM ({totals}) AS __totals) AS __shares"
    ))
}

/// Writes the customers who are like those of the audience and not in it, with the weights that make them so.
pub(super) fn lookalike(mut request: Request) -> Result<String> {
    let profiles = Profiles::read(&mut request)?;
    let top = request.arguments.number("top", 1..=100_000_000)?.unwrap_or(1_000);
    request.arguments.finish()?;
    if profiles.attributes.is_empty() && !request.arguments.is_described() {
        return Err(misuse(request.function, "attributes: none are named"));
    }
    let names = column_list(&profiles.names);
    let own: Vec<String> =
        profiles.names.iter().map(|name| format!("__p.{}", quoted(name))).collect();
    let own = own.join(", ");
    let counted = format!(
        "SELECT attribute, __at, value, CAST(count(*) FILTER (WHERE __is_in) AS DOUBLE) AS __in, \
           CAST(count(*) FILTER (WHERE NOT __is_in) AS DOUBLE) AS __out FROM ({}) AS __profiles GROUP BY attribute, __at, value",
        profiles.sql
    );
    // One more of each value than there are, so that a value that nobody of them has is unlikely and not impossible. Weights are decimals:
    // their sum is the same in any order.
    let weights = format!(
        "SELECT attribute, __at, value, CAST(ln((__in + 1) / (sum(__in) OVER __of + count(*) OVER __of)) \
           - ln((__out + 1) / (sum(__out) OVER __of + count(*) OVER __of)) AS DECIMAL(18, 6)) AS weight, sum(__in) OVER __of AS __like \
         FROM ({counted}) AS __counted WINDOW __of AS (PARTITION BY __at)"
    );
    Ok(format!(
        "SELECT {names}, score, weights FROM \
           (SELECT {own}, sum(__w.weight) AS score, \
              string_agg(__w.attribute || '=' || coalesce(__w.value, 'NULL') || ' ' || CAST(__w.weight AS TEXT), ', ' ORDER BY __w.__at) AS weights \
            FROM ({sql}) AS __p JOIN ({weights}) AS __w ON __w.__at = __p.__at AND __w.value IS NOT DISTINCT FROM __p.value \
            WHERE NOT __p.__is_in AND __w.__like > 0 GROUP BY {own}) AS __scored \
         ORDER BY score DESC, {names} LIMIT {top}",
        sql = profiles.sql,
    ))
}

/// Writes who came and who went between two versions of an audience; the relation is its history.
pub(super) fn diff(mut request: Request) -> Result<String> {
    for column in ["one_id", "added_in", "removed_in"] {
        if !request.columns.has(column) {
            return Err(misuse(request.function, format!("the relation has no column {column}"))
                .hint("the history of an audience: audience_diff(vip_history, \"from\" => 1)"));
        }
    }
    let from = request.arguments.number("from", 0..=i64::MAX)?.unwrap_or(0);
    let to = request.arguments.number("to", 0..=i64::MAX)?;
    request.arguments.finish()?;
    if to.is_some_and(|to| to < from) {
        return Err(misuse(
            request.function,
            format!("from {from} is after to {}", to.unwrap_or(0)),
        ));
    }
    let was_in = |version: &str| {
        format!(
            "coalesce(bool_or(added_in <= {version} AND (removed_in IS NULL OR removed_in > {version})), false)"
        )
    };
    let to = to.unwrap_or(i64::MAX);
    Ok(format!(
        "SELECT one_id, CASE WHEN __is THEN 'added' ELSE 'removed' END AS change FROM \
           (SELECT one_id, {was} AS __was, {is} AS __is FROM {relation} AS __history GROUP BY one_id) AS __both WHERE __was <> __is",
        was = was_in(&from.to_string()),
        is = was_in(&to.to_string()),
        relation = request.relation,
    ))
}
