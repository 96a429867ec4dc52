//! `member_points(ledger, ...)`, `member_levels(orders, ...)`: what members have, what they are about to lose, and what would keep it.

use super::rfm::Orders;
use super::{Request, all_known, column_list, misuse, relation_name};
use crate::dialect::quoted;
use crate::error::Result;

/// How far a report looks ahead, in days.
fn within(request: &mut Request) -> Result<i64> {
    Ok(request.arguments.number("within_days", 0..=36_500)?.unwrap_or(30))
}

/// Writes one row a customer: points earned, spent, expired, left, and about to expire.
pub(super) fn points(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.time_column(&["occurred_at", "earned_at", "ordered_at"])?;
    let points = request.needed_column("points", &["points"])?;
    let expires = request.column("expires", &["expires_at", "expires_on"])?;
    let timezone = request.timezone()?;
    let as_of = request.as_of()?;
    let within = within(&mut request)?;
    request.arguments.finish()?;
    let names = column_list(&customer);
    let day = format!("local_date({}, {timezone})", quoted(&time));
    let expires = match expires {
        Some(column) => format!("local_date({}, {timezone})", quoted(&column)),
        None => "CAST(NULL AS DATE)".to_owned(),
    };
    let entry = format!(
        "named_struct('day', {day}, 'at', CAST({time} AS TIMESTAMP), 'points', CAST({points} AS DECIMAL(38, 6)), 'expires', {expires})",
        time = quoted(&time),
        points = quoted(&points),
    );
    let known = as_of.as_ref().map_or(String::new(), |as_of| format!(" AND {day} <= {as_of}"));
    let end = as_of.unwrap_or_else(|| "max(__last) OVER ()".to_owned());
    let ledgers = format!(
        "SELECT {names}, array_agg({entry}) AS __ledger, max({day}) AS __last FROM {} AS __r WHERE {} AND {} IS NOT NULL{known} GROUP BY {names}",
        request.relation,
        all_known(&customer),
        quoted(&time),
    );
    Ok(format!(
        "SELECT {names}, get_field(__p, 'earned') AS earned, get_field(__p, 'spent') AS spent, get_field(__p, 'expired') AS expired, \
           get_field(__p, 'balance') AS balance, get_field(__p, 'expiring') AS expiring, get_field(__p, 'next_expiry') AS next_expiry, \
           __as_of AS as_of \
         FROM (SELECT {names}, __points_left(__ledger, __as_of, __as_of + {within}) AS __p, __as_of \
               FROM (SELECT *, CAST({end} AS DATE) AS __as_of FROM ({ledgers}) AS __ledgers) AS __dated) AS __members"
    ))
}

/// Writes one row a customer: the level that what they spent gives, and the one that it will give if they buy nothing more.
pub(super) fn levels(mut request: Request) -> Result<String> {
    let orders = Orders::read(&mut request)?;
    let as_of = request.as_of()?;
    let window = request.arguments.number("window_days", 1..=36_500)?.unwrap_or(365);
    let within = within(&mut request)?;
    let levels = request.arguments.text("levels")?;
    let is_described = request.arguments.is_described();
    request.arguments.finish()?;
    let levels = match levels {
        Some(levels) => relation_name(&levels),
        None if is_described => "(SELECT 'a' AS level, 0 AS needed)".to_owned(),
        None => {
            return Err(misuse(request.function, "the levels are missing")
                .hint("levels => 'tiers', a relation (level TEXT, needed NUMERIC): what has to be spent for each"));
        }
    };
    let names = column_list(&orders.names);
    let end = as_of.clone().unwrap_or_else(|| {
        "max(CASE WHEN NOT __void AND __amount > 0 THEN __day END) OVER ()".to_owned()
    });
    let counts = "(NOT __void AND __amount > 0 OR __amount < 0)";
    let since = |later: i64| format!("__day > __as_of - {} AND __day <= __as_of", window - later);
    let sum = |later: i64| {
        format!("coalesce(sum(__amount) FILTER (WHERE {counts} AND {}), 0)", since(later))
    };
    let kept = match within < window {
        true => sum(within),
        false => "CAST(0 AS DECIMAL(38, 6))".to_owned(),
    };
    let dated = orders.of_one_currency(&format!(
        "SELECT *, CAST({end} AS DATE) AS __as_of FROM ({}) AS __orders WHERE {counts}",
        orders.each(as_of.as_deref())
    ));
    let spent = format!(
        "SELECT {names}, {now} AS spent, {kept} AS keeps, max(__as_of) AS as_of FROM ({dated}) AS __dated GROUP BY {names}",
        now = sum(0),
    );
    let tiers = format!(
        "SELECT min(CAST(level AS TEXT)) AS level, CAST(needed AS DECIMAL(38, 6)) AS needed FROM {levels} AS __levels GROUP BY needed"
    );
    let placed = format!(
        "SELECT {names}, spent, keeps, as_of, max(__t.needed) FILTER (WHERE __t.needed <= spent) AS __now, \
           max(__t.needed) FILTER (WHERE __t.needed <= keeps) AS __then, min(__t.needed) FILTER (WHERE __t.needed > spent) AS __next \
         FROM ({spent}) AS __spent CROSS JOIN ({tiers}) AS __t GROUP BY {names}, spent, keeps, as_of"
    );
    let own: Vec<String> =
        orders.names.iter().map(|name| format!("__p.{}", quoted(name))).collect();
    Ok(format!(
        "SELECT {own}, __a.level AS level, CAST(spent AS DECIMAL(38, 6)) AS spent, __b.level AS level_then, \
           __now IS NOT NULL AND (__then IS NULL OR __now > __then) AS at_risk, \
           CAST(CASE WHEN __now > keeps THEN __now - keeps ELSE 0 END AS DECIMAL(38, 6)) AS missing, \
           __c.level AS next_level, CAST(__next - spent AS DECIMAL(38, 6)) AS to_next, as_of \
         FROM ({placed}) AS __p LEFT JOIN ({tiers}) AS __a ON __a.needed = __now LEFT JOIN ({tiers}) AS __b ON __b.needed = __then \
           LEFT JOIN ({tiers}) AS __c ON __c.needed = __next",
        own = own.join(", "),
    ))
}
