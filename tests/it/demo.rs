//! README command one, against the answers that the sample was planted with.

use super::server::{run, run_well};

fn answers() -> serde_json::Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/answers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_demo_finds_the_planted_answers_and_then_everything_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let printed = run_well(&["demo", "--no-serve", "--dir", &w]);
    for heading in ["Who is who", "What they are worth", "How they buy", "Who comes back"] {
        assert!(printed.contains(heading), "{printed}");
    }
    let answers = answers();
    let one = |sql: &str| {
        run_well(&["sql", "--dir", &w, "--format", "csv", sql]).lines().nth(1).unwrap().to_owned()
    };
    let wanted =
        |key: &str| answers[key].as_str().map_or_else(|| answers[key].to_string(), str::to_owned);
    assert_eq!(one("SELECT count(*) FROM order_lines"), wanted("order_lines"));
    assert_eq!(one("SELECT sum(quantity * unit_price) FROM order_lines"), wanted("lines_total"));
    assert_eq!(one("SELECT count(*) FROM orders"), wanted("orders"));
    assert_eq!(one("SELECT count(*) FROM customer.map"), wanted("records"));
    assert_eq!(
        one("SELECT count(DISTINCT one_id) FROM customer.map"),
        wanted("customers_by_oneid")
    );
    let classic =
        "SELECT count(DISTINCT one_id) FROM customer.map WHERE record_id LIKE 'classic-%'";
    assert_eq!(one(classic), "1");
    let kiosk = "SELECT count(DISTINCT one_id) FROM customer.map WHERE record_id LIKE 'kiosk-%'";
    assert_eq!(one(kiosk), "40");

    let list = |sql: &str| {
        run_well(&["sql", "--dir", &w, "--format", "csv", sql])
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let planted = |key: &str| {
        answers[key].as_array().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let funnel = |key: &str| {
        format!(
            "SELECT users FROM funnel_report(event_facts, steps => ARRAY['visit', 'cart', 'checkout', 'pay'], window => INTERVAL '7 days'{key}) ORDER BY step"
        )
    };
    assert_eq!(list(&funnel("")), planted("funnel_by_oneid"));
    assert_eq!(
        list(&funnel(", customer => ARRAY['source', 'record_id']")),
        planted("funnel_by_record")
    );
    let retention = "SELECT retained FROM retention_matrix((SELECT * FROM orders WHERE status = 'completed' AND amount > 0), \
        interval => 'month', kind => 'first_time') WHERE cohort = DATE '2010-12-01' ORDER BY period";
    assert_eq!(list(retention), planted("retention_first_month"));

    for (campaign, planted) in answers["campaigns"].as_object().unwrap() {
        // By channel of the first touch: a customer is in one of them.
        let found = one(&format!(
            "SELECT sum(received), sum(viewed), sum(claimed), sum(redeemed), sum(buyers) FROM campaign_daily WHERE campaign = '{campaign}'"
        ));
        let planted: Vec<String> =
            planted.as_array().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, planted.join(","), "{campaign}");
    }
    let standing = "SELECT count(*), count(*) FILTER (WHERE state = 'SUSPENDED' AND data_asof = '2011-12-09') FROM reports.status";
    assert_eq!(one(standing), "12,12");

    let again = run(&["demo", "--no-serve", "--dir", &w]);
    assert_eq!(String::from_utf8_lossy(&again.stderr).matches("already loaded").count(), 5);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), printed);
}
