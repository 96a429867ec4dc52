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
    let known_end = cal_end.as_ref().map(|day| format!("CAST({day} AS DATE)"));
    let until = known_end.as_ref().map_or(String::new(), |day| format!("AND __day <= {day}"));
    // With an end that is given no row has to wait for the last one.
    let end = known_end.clone().unwrap_or_else(|| "max(__last) OVER ()".to_owned());
    let days = format!(
        "SELECT {names}, __day, sum(__amount) AS __paid{} FROM ({}) AS __orders \
         WHERE NOT __void AND __amount >= 0 {until} GROUP BY {names}, __day",
        orders.currencies(),
        orders.each(known_end.as_deref())
    );
    let people = format!(
        "SELECT {names}, count(*) - 1 AS __x, min(__day) AS __first, max(__day) AS __last, sum(__paid) AS __paid, \
           first_value(__paid ORDER BY __day) AS __at_first{} FROM ({days}) AS __days GROUP BY {names}",
        orders.currencies()
    );
    let dated =
        format!("SELECT *, {end} AS __end FROM ({}) AS __people", orders.of_one_currency(&people));
    Ok(format!(
        "SELECT {names}, __x AS x, CAST(__last - __first AS DOUBLE) / {unit_days} AS t_x, \
           CAST(__end - __first AS DOUBLE) / {unit_days} AS t, \
           CAST(CASE WHEN __x > 0 THEN (__paid - __at_first) / __x END AS DECIMAL(38, 6)) AS m_x, \
           __first AS first_on, __end AS cal_end FROM ({dated}) AS __dated"
    ))
}
