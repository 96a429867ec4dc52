//! `btyd_summary(orders, ...)`: what the models of buying want to know of each customer.

use super::rfm::Orders;
use super::{Request, column_list};
use crate::error::Result;

/// Writes one row a customer: `x`, `t_x`, `t` and `m_x`.
///
/// Purchases of one day are one, else CDNOW's 2,457 repeat purchases would be more; one that cost nothing is a purchase, else its 2,357
/// customers would be fewer.
pub(super) fn select(mut request: Request) -> Result<String> {
    let orders = Orders::read(&mut request)?;
    let cal_end = request.arguments.expression("cal_end");
    let cal_end = match cal_end {
        Some(day) => Some(day.to_string()),
        None => request.as_of()?,
    };
    let unit_days = request.arguments.number("unit_days", 1..=3_660)?.unwrap_or(7);
    request.arguments.finish()?;
    let names = column_list(&orders.names);
    let end = match &cal_end {
        Some(day) => format!("CAST({day} AS DATE)"),
        None => "max(__day) OVER ()".to_owned(),
    };
    let known_end = cal_end.as_ref().map(|day| format!("CAST({day} AS DATE)"));
    let until = known_end.as_ref().map_or(String::new(), |day| format!("AND __day <= {day}"));
    // With an end that is given no row has to wait for the last one.
    let days = format!(
        "SELECT {names}, __day, sum(__amount) AS __paid, min(__lowest) AS __lowest, max(__highest) AS __highest \
         FROM ({}) AS __orders WHERE NOT __void AND __amount >= 0 {until} GROUP BY {names}, __day",
        orders.each(known_end.as_deref())
    );
    let dated = format!(
        "SELECT *, min(__day) OVER (PARTITION BY {names}) AS __first, {end} AS __end FROM ({}) AS __days",
        orders.of_one_currency(&days)
    );
    Ok(format!(
        "SELECT {names}, count(*) - 1 AS x, CAST(max(__day) - min(__day) AS DOUBLE) / {unit_days} AS t_x, \
           CAST(max(__end) - min(__day) AS DOUBLE) / {unit_days} AS t, \
           CAST(CASE WHEN count(*) > 1 THEN sum(__paid) FILTER (WHERE __day > __first) / (count(*) - 1) END AS DECIMAL(38, 6)) AS m_x, \
           min(__day) AS first_on, max(__end) AS cal_end \
         FROM ({dated}) AS __dated GROUP BY {names}"
    ))
}
