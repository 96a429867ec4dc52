//! RFM of a real shop's year, beside the slow and obvious computation.

use std::collections::BTreeMap;
use std::path::Path;

use super::server::{csv, run_well};

/// An order: who, when in days, how much in millionths, and whether it is void.
struct Order {
    customer: String,
    day: i64,
    amount: i128,
    is_void: bool,
}

/// What is known of a customer.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    recency: i128,
    frequency: i128,
    monetary: i128,
}

fn millionths(text: &str) -> i128 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    sign * format!("{whole}{part:0<6}").parse::<i128>().unwrap()
}

fn orders_of(dir: &str) -> Vec<Order> {
    let rows = csv(
        dir,
        "SELECT record_id, ordered_at::date - DATE '1970-01-01', amount, status FROM orders WHERE record_id IS NOT NULL",
    );
    let order = |row: Vec<String>| Order {
        customer: row[0].clone(),
        day: row[1].parse().unwrap(),
        amount: millionths(&row[2]),
        is_void: row[3] == "cancelled",
    };
    rows.into_iter().map(order).collect()
}

fn figures(orders: &[Order], as_of: i64, days: i64) -> BTreeMap<String, Figures> {
    let mut found: BTreeMap<String, Figures> = BTreeMap::new();
    let within = |order: &&Order| as_of - days < order.day && order.day <= as_of;
    for order in orders.iter().filter(within).filter(|order| !order.is_void && order.amount > 0) {
        let recency = i128::from(as_of - order.day);
        let known = found.entry(order.customer.clone()).or_insert(Figures {
            recency,
            frequency: 0,
            monetary: 0,
        });
        known.recency = known.recency.min(recency);
        known.frequency += 1;
    }
    for order in orders.iter().filter(within) {
        let counts = !order.is_void && order.amount > 0 || order.amount < 0;
        if let (true, Some(known)) = (counts, found.get_mut(&order.customer)) {
            known.monetary += order.amount;
        }
    }
    found
}

/// 1 and the number of fifths below the value; a fifth lies between its neighbours by parts of their distance (type 7).
fn score(value: i128, sorted: &[i128]) -> usize {
    let last = sorted.len() - 1;
    let is_above = |k: &usize| {
        let (at, part) = (last * k / 5, (last * k % 5) as i128);
        let (low, high) = (sorted[at], sorted[(at + 1).min(last)]);
        value * 5 > low * 5 + (high - low) * part
    };
    1 + (1..5).filter(is_above).count()
}

fn sorted(all: &BTreeMap<String, Figures>, of: impl Fn(&Figures) -> i128) -> Vec<i128> {
    let mut values: Vec<i128> = all.values().map(of).collect();
    values.sort_unstable();
    values
}

/// The orders of the sample, in a warehouse of their own.
fn loaded() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("w").display().to_string();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/orders.parquet");
    run_well(&["load", "--dir", &dir, "orders", &file.display().to_string()]);
    (folder, dir)
}

/// The cohort of December 2010 month by month, as it is published for this data (UCI, Online Retail): with cancellations and without.
#[test]
fn the_cohorts_of_a_real_year_are_the_published_ones() {
    let (_folder, dir) = loaded();
    let retained = |orders: &str| -> Vec<String> {
        let sql = format!(
            "SELECT retained FROM retention_matrix((SELECT * FROM orders WHERE {orders}), customer => 'record_id', time => 'ordered_at', interval => 'month', kind => 'first_time') \
             WHERE cohort = '2010-12-01' ORDER BY period"
        );
        csv(&dir, &sql).into_iter().map(|row| row[0].clone()).collect()
    };
    let with = [948, 362, 317, 367, 341, 376, 360, 336, 336, 374, 354, 474, 260];
    let without = [885, 324, 286, 340, 321, 352, 321, 309, 313, 350, 331, 445, 235];
    assert_eq!(retained("record_id IS NOT NULL"), with.map(|n: i32| n.to_string()));
    assert_eq!(
        retained("status = 'completed' AND amount > 0"),
        without.map(|n: i32| n.to_string())
    );
}

/// Who sleeps, week by week, and how many of those who spent more than the mean.
#[test]
fn the_sleepers_of_a_real_year_are_counted_as_by_hand() {
    const WHOLE_LIFE: i64 = 100_000;
    let (_folder, dir) = loaded();
    let orders = orders_of(&dir);
    let last = 15_317; // 2011-12-09
    let expected: Vec<Vec<String>> = (0..30)
        .rev()
        .map(|week| {
            let all = figures(&orders, last - 7 * week, WHOLE_LIFE);
            let spent: i128 = all.values().map(|known| known.monetary).sum();
            let is_important = |known: &&Figures| known.monetary * all.len() as i128 > spent;
            let sleeps = |known: &&Figures| (90..180).contains(&known.recency);
            let count = |is: &dyn Fn(&&Figures) -> bool| all.values().filter(is).count();
            [
                all.len(),
                count(&|known| known.recency < 90),
                count(&sleeps),
                count(&|known| known.recency >= 180),
                count(&is_important),
                count(&|known| sleeps(known) && is_important(known)),
            ]
            .iter()
            .map(ToString::to_string)
            .collect()
        })
        .collect();
    let found = csv(
        &dir,
        "SELECT customers, active, dormant, lost, important, important_dormant FROM dormant_trend(orders, customer => 'record_id', \
         \"from\" => '2011-05-20', \"to\" => '2011-12-09') ORDER BY as_of",
    );
    assert_eq!(found, expected);
}

#[test]
fn a_real_year_is_scored_as_by_hand() {
    let (_folder, dir) = loaded();
    let orders = orders_of(&dir);
    let as_of = 15_317; // 2011-12-09
    for (days, customers) in [(30, 1_628), (90, 2_889), (365, 4_264)] {
        let all = figures(&orders, as_of, days);
        let [r, f, m] = [
            sorted(&all, |known| known.recency),
            sorted(&all, |known| known.frequency),
            sorted(&all, |known| known.monetary),
        ];
        let mean_is_below =
            |value: i128, all: &[i128]| value * all.len() as i128 > all.iter().sum();
        let is_recent = |value: i128| value * (r.len() as i128) < r.iter().sum();
        let expected: Vec<Vec<String>> = all
            .iter()
            .map(|(customer, known)| {
                let high = [
                    is_recent(known.recency),
                    mean_is_below(known.frequency, &f),
                    mean_is_below(known.monetary, &m),
                ];
                let segment = match high {
                    [true, true, true] => "important_value",
                    [true, false, true] => "important_develop",
                    [false, true, true] => "important_keep",
                    [false, false, true] => "important_winback",
                    [true, true, false] => "general_value",
                    [true, false, false] => "general_develop",
                    [false, true, false] => "general_keep",
                    [false, false, false] => "general_winback",
                };
                let scores = [
                    6 - score(known.recency, &r),
                    score(known.frequency, &f),
                    score(known.monetary, &m),
                ];
                let numbers = [known.recency, known.frequency].map(|number| number.to_string());
                let scores = scores.map(|score| score.to_string());
                [customer.clone()]
                    .into_iter()
                    .chain(numbers)
                    .chain(scores)
                    .chain([segment.to_owned()])
                    .collect()
            })
            .collect();
        let call = format!(
            "rfm(orders, customer => 'record_id', window_days => {days}, as_of => '2011-12-09')"
        );
        let answer = csv(
            &dir,
            &format!(
                "SELECT record_id, recency_days, frequency, r, f, m, segment FROM {call} ORDER BY record_id COLLATE \"C\""
            ),
        );
        assert_eq!(answer.len(), customers, "{days} days");
        assert_eq!(answer, expected, "{days} days");
        let money = csv(
            &dir,
            &format!("SELECT record_id, monetary FROM {call} ORDER BY record_id COLLATE \"C\""),
        );
        let differ =
            money.iter().filter(|row| millionths(&row[1]) != all[&row[0]].monetary).count();
        assert_eq!(differ, 0, "{days} days");
        // Thresholds that were kept score the same customers the same.
        let kept = format!("cuts_{days}");
        run_well(&[
            "sql",
            "--dir",
            &dir,
            &format!("CREATE TABLE {kept} AS SELECT * FROM {}", call.replace("rfm(", "rfm_cuts(")),
        ]);
        let by_kept = call.replace(')', &format!(", scores_from => '{kept}')"));
        let moved = csv(
            &dir,
            &format!(
                "SELECT count(*) FROM {call} a JOIN {by_kept} b ON a.record_id = b.record_id WHERE a.rfm = b.rfm"
            ),
        );
        assert_eq!(moved[0][0], customers.to_string(), "{days} days");
    }
}
