//! `customer_stage(orders, ...)`, `stage_trend(orders, ...)`, `dormant_trend(orders, ...)`: where customers stand, and who falls asleep.

use chrono::NaiveDate;

use super::rfm::{self, Figures, Scoring};
use super::{Request, column_list, misuse, relation_name, same_customer, trend};
use crate::error::Result;

/// Days without an order after which a customer is dormant, and lost.
struct Sleep {
    dormant: i64,
    lost: i64,
}

impl Sleep {
    fn read(request: &mut Request) -> Result<Self> {
        let dormant = request.arguments.number("dormant_days", 1..=36_500)?.unwrap_or(90);
        let lost = request.arguments.number("lost_days", 1..=36_500)?.unwrap_or(180);
        if dormant >= lost {
            return Err(misuse(
                request.function,
                format!("dormant_days => {dormant} is not below lost_days => {lost}"),
            ));
        }
        Ok(Self { dormant, lost })
    }
}

/// The rules of stages.
struct Stages {
    sleep: Sleep,
    /// Orders from which a customer is a multiple repeat buyer.
    multiple: i64,
    /// The relation of referrals, reviews and the like, and how many make a KOC.
    advocates: Option<(String, i64)>,
}

impl Stages {
    fn read(request: &mut Request) -> Result<Self> {
        let sleep = Sleep::read(request)?;
        let multiple = request.arguments.number("multiple_orders", 3..=1_000_000)?.unwrap_or(4);
        let actions = request.arguments.number("koc_actions", 1..=1_000_000)?;
        let advocates = request.arguments.text("advocates")?;
        if actions.is_some() && advocates.is_none() {
            return Err(misuse(
                request.function,
                "koc_actions counts rows of advocates => 'relation', which is not given",
            ));
        }
        let advocates = advocates.map(|relation| (relation, actions.unwrap_or(1)));
        Ok(Self { sleep, multiple, advocates })
    }

    /// One row a customer: its stage on a day.
    fn of_customers(&self, figures: &Figures, as_of: Option<&str>) -> String {
        let names = column_list(&figures.names);
        let people = figures.people(as_of);
        let people = match &self.advocates {
            None => format!("SELECT *, false AS __is_koc FROM ({people}) AS __people"),
            Some((relation, actions)) => {
                let same = same_customer(&figures.names, "__k", "__p");
                format!(
                    "SELECT __p.*, coalesce(__k.__actions >= {actions}, false) AS __is_koc FROM ({people}) AS __p LEFT JOIN \
                       (SELECT {names}, count(*) AS __actions FROM {relation} GROUP BY {names}) AS __k ON {same}",
                    relation = relation_name(relation),
                )
            }
        };
        let Sleep { dormant, lost } = self.sleep;
        format!(
            "SELECT {names}, CASE WHEN NOT __bought THEN 'unpaid' WHEN recency_days >= {lost} THEN 'lost' \
               WHEN recency_days >= {dormant} THEN 'dormant' WHEN __is_koc THEN 'koc' \
               WHEN frequency >= {multiple} THEN 'multiple_repeat' WHEN frequency >= 2 THEN 'repeat' \
               ELSE 'first_purchase' END AS stage, recency_days, frequency AS orders, monetary, __as_of AS as_of \
             FROM ({people}) AS __customers",
            multiple = self.multiple,
        )
    }
}

/// Writes the stage of each customer.
pub(super) fn stage(mut request: Request) -> Result<String> {
    let figures = Figures::read_for_life(&mut request)?;
    let stages = Stages::read(&mut request)?;
    request.arguments.finish()?;
    Ok(stages.of_customers(&figures, None))
}

/// Writes how customers go from stage to stage.
pub(super) fn stage_trend(mut request: Request) -> Result<String> {
    let figures = Figures::read_for_life(&mut request)?;
    let stages = Stages::read(&mut request)?;
    let days = trend::days(&mut request, "month")?;
    request.arguments.finish()?;
    let names = column_list(&figures.names);
    let report = |day: &NaiveDate| {
        let of_day = stages.of_customers(&figures, Some(&format!("DATE '{day}'")));
        format!("SELECT {names}, stage FROM ({of_day}) AS __stages")
    };
    let moves = trend::moves(&names, "stage", &days, report);
    let asleep = |column: &str| format!("{column} IN ('dormant', 'lost')");
    let rank = |column: &str| {
        format!(
            "CASE {column} WHEN 'unpaid' THEN 0 WHEN 'first_purchase' THEN 1 WHEN 'repeat' THEN 2 WHEN 'multiple_repeat' THEN 3 WHEN 'koc' THEN 4 END"
        )
    };
    Ok(format!(
        "SELECT as_of, previous, stage, CASE WHEN previous IS NULL THEN 'new' WHEN stage IS NULL THEN 'gone' \
           WHEN previous = stage THEN 'retained' WHEN {now_asleep} THEN 'lapsed' WHEN {was_asleep} THEN 'won_back' \
           WHEN {now} > {was} THEN 'upgraded' ELSE 'downgraded' END AS change, customers \
         FROM ({moves}) AS __moves_of_stages",
        now_asleep = asleep("stage"),
        was_asleep = asleep("previous"),
        now = rank("stage"),
        was = rank("previous"),
    ))
}

/// Writes how many customers sleep, week by week.
pub(super) fn dormant_trend(mut request: Request) -> Result<String> {
    let figures = Figures::read_for_life(&mut request)?;
    let scoring = Scoring::eight();
    let sleep = Sleep::read(&mut request)?;
    let days = trend::days(&mut request, "week")?;
    request.arguments.finish()?;
    let Sleep { dormant, lost } = sleep;
    let each: Vec<String> = days
        .iter()
        .map(|day| {
            let scored = rfm::scored(&figures, &scoring, Some(&format!("DATE '{day}'")));
            let counted = |condition: &str| format!("count(*) FILTER (WHERE {condition})");
            let sleeps = format!("recency_days >= {dormant} AND recency_days < {lost}");
            let important = "segment LIKE 'important%'";
            format!(
                "SELECT DATE '{day}' AS as_of, count(*) AS customers, {active} AS active, {asleep} AS dormant, {gone} AS lost, \
                   {all_important} AS important, {asleep_important} AS important_dormant \
                 FROM ({scored}) AS __scored_of_day",
                active = counted(&format!("recency_days < {dormant}")),
                asleep = counted(&sleeps),
                gone = counted(&format!("recency_days >= {lost}")),
                all_important = counted(important),
                asleep_important = counted(&format!("{sleeps} AND {important}")),
            )
        })
        .collect();
    Ok(format!(
        "SELECT as_of, customers, active, dormant, lost, CAST(dormant AS DOUBLE) / nullif(customers, 0) AS dormant_share, \
           important, important_dormant, CAST(important_dormant AS DOUBLE) / nullif(important, 0) AS important_share \
         FROM ({}) AS __days",
        each.join(" UNION ALL ")
    ))
}
