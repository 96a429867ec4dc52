//! `campaign_report(events, ...)`: what became of those who received a campaign, beside those who did not.

use super::steps::Step;
use super::{Request, all_known, column_list, misuse, relation_name, same_customer};
use crate::dialect::quoted;
use crate::error::Result;

/// Writes one row a campaign and channel; `docs/campaign_report.md` states its rules.
pub(super) fn select(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.time_column(&["occurred_at", "ordered_at"])?;
    let event = request.column("event", &["event"])?;
    let campaign = request.needed_column("campaign", &["campaign_id"])?;
    let channel = request.column("channel", &["channel"])?;
    let amount = request.column("amount", &["amount"])?;
    let condition = |request: &mut Request, name: &'static str| -> Result<Option<String>> {
        let text = request.arguments.text(name)?;
        let step = text.map(|text| Step::parse(&text, event.as_deref())).transpose()?;
        Ok(step.map(|step| format!("coalesce({}, false)", step.condition)))
    };
    let received = condition(&mut request, "received")?;
    let viewed = condition(&mut request, "viewed")?;
    let claimed = condition(&mut request, "claimed")?;
    let redeemed = condition(&mut request, "redeemed")?;
    let ordered = condition(&mut request, "ordered")?;
    let refunded = condition(&mut request, "refunded")?;
    let window = request.arguments.span("window")?;
    let window = window.unwrap_or_else(|| "INTERVAL '30 days'".to_owned());
    let dormant = request.arguments.number("dormant_days", 1..=3_660)?.unwrap_or(90);
    let control = request.arguments.text("control")?;
    let costs = request.arguments.text("costs")?;
    let is_described = request.arguments.is_described();
    request.arguments.finish()?;
    let never = || "false".to_owned();
    let (Some(received), Some(ordered)) = (
        received.or_else(|| is_described.then(never)),
        ordered.or_else(|| is_described.then(never)),
    ) else {
        return Err(misuse(
            request.function,
            "received and ordered are needed, the events of a touch and of an order",
        )
        .hint("received => 'campaign_received', ordered => 'purchase'"));
    };
    let text = |column: &Option<String>| match column {
        Some(column) => format!("CAST({} AS TEXT)", quoted(column)),
        None => "CAST(NULL AS TEXT)".to_owned(),
    };
    let money = match &amount {
        Some(column) => format!("CAST({} AS DECIMAL(38, 6))", quoted(column)),
        None => "CAST(NULL AS DECIMAL(38, 6))".to_owned(),
    };
    let names = column_list(&customer);
    let is = |condition: Option<String>| condition.unwrap_or_else(never);
    // Instants, whatever the column is: days begin at midnight.
    let acts = format!(
        "SELECT {names}, CAST({time} AS TIMESTAMP) AS __at, CAST({campaign} AS TEXT) AS __campaign, {channel} AS __channel, {money} AS __amount, \
           {received} AS __received, {viewed} AS __viewed, {claimed} AS __claimed, {redeemed} AS __redeemed, {ordered} AS __ordered, {refunded} AS __refunded \
         FROM {relation} AS __r WHERE {known} AND {time} IS NOT NULL",
        time = quoted(&time),
        campaign = quoted(&campaign),
        channel = text(&channel),
        viewed = is(viewed),
        claimed = is(claimed),
        redeemed = is(redeemed),
        refunded = is(refunded),
        relation = request.relation,
        known = all_known(&customer),
    );
    let acts = format!(
        "SELECT * FROM ({acts}) AS __acts WHERE __received OR __viewed OR __claimed OR __redeemed OR __ordered OR __refunded"
    );
    let treated = format!(
        "SELECT {names}, __campaign, min(__channel) AS __channel, min(__at) AS __since, true AS __treated FROM \
           (SELECT *, rank() OVER (PARTITION BY {names}, __campaign ORDER BY __at) AS __place FROM ({acts}) AS __acts \
            WHERE __received AND __campaign IS NOT NULL) AS __touches WHERE __place = 1 GROUP BY {names}, __campaign"
    );
    // Those of the control group are looked at from when the campaign began; who received it all the same is none of them.
    let group = match &control {
        None => treated.clone(),
        Some(control) => {
            let held = format!(
                "SELECT DISTINCT {}, CAST(__c.{campaign} AS TEXT) AS __campaign FROM {relation} AS __c WHERE {known}",
                customer
                    .iter()
                    .map(|c| format!("__c.{}", quoted(c)))
                    .collect::<Vec<_>>()
                    .join(", "),
                campaign = quoted(&campaign),
                relation = relation_name(control),
                known = all_known(&customer),
            );
            let own: Vec<String> = customer.iter().map(|c| format!("__h.{}", quoted(c))).collect();
            format!(
                "{treated} UNION ALL SELECT {own}, __h.__campaign, CAST(NULL AS TEXT), __b.__since, false FROM ({held}) AS __h \
                 JOIN (SELECT __campaign, min(__since) AS __since FROM ({treated}) AS __t GROUP BY __campaign) AS __b ON __b.__campaign = __h.__campaign \
                 LEFT JOIN ({treated}) AS __t ON {same} AND __t.__campaign = __h.__campaign WHERE __t.__treated IS NULL",
                own = own.join(", "),
                same = same_customer(&customer, "__t", "__h"),
            )
        }
    };
    let own: Vec<String> = customer.iter().map(|c| format!("__g.{}", quoted(c))).collect();
    let own = own.join(", ");
    let within = format!("__a.__at >= __g.__since AND __a.__at <= __g.__since + {window}");
    // The campaign's own acts carry its name; orders need not.
    let of_campaign = "__a.__campaign = __g.__campaign";
    let each = format!(
        "SELECT {own}, __g.__campaign, __g.__channel, __g.__treated, \
           coalesce(bool_or(__a.__viewed AND {of_campaign} AND {within}), false) AS __viewed, \
           coalesce(bool_or(__a.__claimed AND {of_campaign} AND {within}), false) AS __claimed, \
           coalesce(bool_or(__a.__redeemed AND {of_campaign} AND {within}), false) AS __redeemed, \
           coalesce(bool_or(__a.__ordered AND {within}), false) AS __bought, \
           count(*) FILTER (WHERE __a.__ordered AND {within}) AS __orders, \
           coalesce(sum(__a.__amount) FILTER (WHERE __a.__ordered AND {within}), 0) \
             - coalesce(sum(abs(__a.__amount)) FILTER (WHERE __a.__refunded AND {within}), 0) AS __revenue, \
           max(__a.__at) FILTER (WHERE __a.__ordered AND __a.__at < __g.__since) AS __before, min(__g.__since) AS __since \
         FROM ({group}) AS __g LEFT JOIN ({acts}) AS __a ON {same} GROUP BY {own}, __g.__campaign, __g.__channel, __g.__treated",
        same = same_customer(&customer, "__a", "__g"),
    );
    let recent = format!("__before >= __since - INTERVAL '{dormant} days'");
    let count = |condition: &str| format!("count(*) FILTER (WHERE __treated AND {condition})");
    let rows = format!(
        "SELECT __campaign, __channel, {received} AS received, {viewed} AS viewed, {claimed} AS claimed, {redeemed} AS redeemed, {buyers} AS buyers, \
           CAST(coalesce(sum(__orders) FILTER (WHERE __treated), 0) AS BIGINT) AS orders, \
           {revenue} AS revenue, \
           {new} AS new_customers, {retained} AS retained, {won} AS won_back, {lost} AS lost \
         FROM ({each}) AS __each WHERE __treated GROUP BY __campaign, __channel",
        revenue = match &amount {
            Some(_) =>
                "CAST(coalesce(sum(__revenue) FILTER (WHERE __treated), 0) AS DECIMAL(38, 6))",
            None => "CAST(NULL AS DECIMAL(38, 6))",
        },
        received = count("true"),
        viewed = count("__viewed"),
        claimed = count("__claimed"),
        redeemed = count("__redeemed"),
        buyers = count("__bought"),
        new = count("__bought AND __before IS NULL"),
        retained = count(&format!("__bought AND {recent}")),
        won = count(&format!("__bought AND NOT {recent}")),
        lost = count("NOT __bought AND __before IS NOT NULL"),
    );
    let held = format!(
        "SELECT __campaign, count(*) AS control, count(*) FILTER (WHERE __bought) AS control_buyers FROM ({each}) AS __each WHERE NOT __treated GROUP BY __campaign"
    );
    let cost = match &costs {
        None => "SELECT CAST(NULL AS TEXT) AS __campaign, CAST(NULL AS DECIMAL(38, 6)) AS cost WHERE false".to_owned(),
        Some(costs) => format!(
            "SELECT CAST({campaign} AS TEXT) AS __campaign, sum(CAST(cost AS DECIMAL(38, 6))) AS cost FROM {relation} AS __k GROUP BY 1",
            campaign = quoted(&campaign),
            relation = relation_name(costs),
        ),
    };
    // The share of buyers less that of the control group, and the bounds that it is between with 95 %: Newcombe's, of Wilson's for each.
    let wilson = |x: &str, n: &str, sign: &str| {
        format!(
            "(({x} + 1.92072941) / ({n} + 3.84145882) {sign} 1.95996398 * sqrt({x} * ({n} - {x}) / {n} + 0.960364705) / ({n} + 3.84145882))"
        )
    };
    let (p, q) = ("(__buyers / __received)", "(__control_buyers / nullif(__control, 0))");
    let (n, m) = ("__received", "nullif(__control, 0)");
    let low = format!(
        "{p} - {q} - sqrt(power({p} - {}, 2) + power({} - {q}, 2))",
        wilson("__buyers", n, "-"),
        wilson("__control_buyers", m, "+")
    );
    let high = format!(
        "{p} - {q} + sqrt(power({} - {p}, 2) + power({q} - {}, 2))",
        wilson("__buyers", n, "+"),
        wilson("__control_buyers", m, "-")
    );
    Ok(format!(
        "SELECT campaign, channel, received, viewed, claimed, redeemed, buyers, orders, revenue, new_customers, retained, won_back, lost, \
           cost, CAST(revenue - cost AS DOUBLE) / nullif(CAST(cost AS DOUBLE), 0) AS roi, control, control_buyers, \
           {p} - {q} AS uplift, {low} AS uplift_low, {high} AS uplift_high FROM \
           (SELECT __r.__campaign AS campaign, __r.__channel AS channel, received, viewed, claimed, redeemed, buyers, orders, revenue, new_customers, retained, \
              won_back, lost, \
              CAST(__k.cost * received / sum(received) OVER (PARTITION BY __r.__campaign) AS DECIMAL(38, 6)) AS cost, \
              __h.control, __h.control_buyers, CAST(received AS DOUBLE) AS __received, CAST(buyers AS DOUBLE) AS __buyers, \
              CAST(__h.control AS DOUBLE) AS __control, CAST(__h.control_buyers AS DOUBLE) AS __control_buyers \
            FROM ({rows}) AS __r LEFT JOIN ({held}) AS __h ON __h.__campaign = __r.__campaign \
            LEFT JOIN ({cost}) AS __k ON __k.__campaign = __r.__campaign) AS __campaigns",
    ))
}
