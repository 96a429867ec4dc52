//! `clientele check` and `CHECK QUALITY` on the sample, whose faults are planted, and on small tables.

use super::server::{csv, run, run_well};

#[test]
fn the_planted_faults_of_the_sample_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["demo", "--no-serve", "--dir", &w]);
    let checked = run(&["check", "--quality", "--dir", &w]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let shown = String::from_utf8(checked.stdout).unwrap();
    // Invalid phones are as many as the identifiers say that were rejected for it.
    let by_check = csv(
        &w,
        "SELECT sum(failed) FROM system.quality WHERE check_name = 'validity' AND table_name = 'identifiers' AND column_name = 'phone'",
    );
    let rejected = csv(
        &w,
        "SELECT count(*) FROM identifiers WHERE id_type = 'phone' AND id_reject_reason('phone', id_value) IN ('placeholder', 'invalid')",
    );
    assert_eq!(by_check, rejected);
    assert_ne!(by_check[0][0], "0");
    // Orders without a buyer are missing values, none is an orphan.
    let missing = csv(
        &w,
        "SELECT failed FROM system.quality WHERE check_name = 'completeness' AND table_name = 'orders' AND column_name = 'record_id'",
    );
    assert_eq!(missing, csv(&w, "SELECT count(*) FROM orders WHERE record_id IS NULL"));
    let orphans = csv(&w, "SELECT sum(failed) FROM system.quality WHERE check_name = 'orphan'");
    assert_eq!(orphans[0][0], "0");
    assert!(!shown.contains("1541"), "a phone number is shown: {shown}");
    let failing = run(&["check", "--quality", "--fail-above", "0.5", "--dir", &w]);
    assert_eq!(failing.status.code(), Some(1));
}

#[test]
fn each_kind_of_fault_is_told_with_its_source_and_a_masked_sample() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    let sql = "CREATE TABLE customers (source TEXT, record_id TEXT, phone TEXT, email TEXT, id_card TEXT, imei TEXT, birth_date DATE, registered_at TIMESTAMPTZ); \
        INSERT INTO customers VALUES \
          ('web', 'c1', '13800138000', 'a@b.example', '11010519491231002X', '490154203237518', '1990-01-01', '2020-01-01'), \
          ('web', 'c1', '00000000000', 'a at b', '110105194912310021', '490154203237519', '1890-01-01', '1970-01-01'), \
          ('app', 'c2', NULL, ' ', NULL, NULL, '2990-01-01', '2990-01-01'); \
        CREATE TABLE orders (order_id TEXT, source TEXT, record_id TEXT); \
        INSERT INTO orders VALUES ('o1', 'web', 'c1'), ('o1', 'web', 'c9'), ('o2', 'app', NULL); \
        CREATE TABLE order_lines (order_id TEXT, amount NUMERIC(18,4)); \
        INSERT INTO order_lines VALUES ('o1', 1), ('o7', 2)";
    run_well(&["sql", "--dir", &w, sql]);
    let checked = run(&["check", "--dir", &w]);
    assert!(checked.status.success());
    let shown = String::from_utf8(checked.stdout).unwrap();
    for line in [
        "completeness\tcustomers\tphone\tapp\t1\t1\t100.00%\t-",
        "completeness\tcustomers\temail\tapp\t1\t1\t100.00%\t-",
        "validity\tcustomers\tphone\tweb\t1\t2\t50.00%\t99999999999",
        "validity\tcustomers\temail\tweb\t1\t2\t50.00%\ta aa a",
        "validity\tcustomers\tid_card\tweb\t1\t2\t50.00%\t999999999999999999",
        "validity\tcustomers\timei\tweb\t1\t2\t50.00%\t999999999999999",
        "birth_date\tcustomers\tbirth_date\tweb\t1\t2\t50.00%\t-",
        "birth_date\tcustomers\tbirth_date\tapp\t1\t1\t100.00%\t-",
        "future\tcustomers\tregistered_at\tapp\t1\t1\t100.00%\t2990-01-01 00:00:00+00",
        "long_ago\tcustomers\tregistered_at\tweb\t1\t2\t50.00%\t1970-01-01 00:00:00+00",
        "duplicate\tcustomers\trecord_id\tweb\t1\t2\t50.00%\ta9",
        "duplicate\torders\torder_id\tweb\t1\t2\t50.00%\to1",
        "orphan\torders\trecord_id\tweb\t1\t2\t50.00%\ta9",
        "orphan\torder_lines\torder_id\t-\t1\t2\t50.00%\to7",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let rows = csv(&w, "CHECK QUALITY orders");
    assert_eq!(rows[0][2..5], ["completeness", "orders", "record_id"].map(str::to_owned));
    assert!(rows.iter().all(|row| row[3] == "orders"));
    let refused = run(&["sql", "--dir", &w, "CHECK QUALITY nothing"]);
    assert_eq!(refused.status.code(), Some(2));
}
