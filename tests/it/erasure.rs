//! People who are erased: gone from answers at once, from the disk in the end, and no old file brings them back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::server::{Server, csv, number, program, python_with, run, run_well};

/// Whether another decoder finds one of the values anywhere in the warehouse.
fn finds(dir: &str, values: &[String]) -> Option<bool> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/residue.py");
    let output =
        Command::new(python_with("pyarrow")?).arg(script).arg(dir).args(values).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("files decoded"), "{told}");
    Some(!output.status.success())
}

const TABLES: [&str; 5] = ["customers", "identifiers", "orders", "events", "customer.map"];

fn rows_of(dir: &str, records: &[Vec<String>], suffix: &str) -> Vec<i64> {
    let keys: Vec<String> = records
        .iter()
        .map(|r| format!("(source = '{}' AND record_id = '{}')", r[0], r[1]))
        .collect();
    let keys = keys.join(" OR ");
    TABLES
        .iter()
        .map(|table| {
            number(dir, &format!("SELECT count(*) AS n FROM {table} {suffix} WHERE {keys}"))
        })
        .collect()
}

/// One of the people of the sample, under all of their records.
#[test]
fn an_erased_person_is_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["demo", "--no-serve", "--dir", &w]);
    let records = csv(
        &w,
        "SELECT m.source, m.record_id FROM customer.map AS m JOIN (SELECT one_id FROM customer.map GROUP BY one_id \
         HAVING count(*) >= 3 ORDER BY one_id LIMIT 1) AS p ON m.one_id = p.one_id ORDER BY 1, 2",
    );
    assert!(records.len() >= 3);
    // What nobody else is known by.
    let mine: Vec<String> = records.iter().map(|r| format!("('{}', '{}')", r[0], r[1])).collect();
    let is_mine: Vec<String> = records
        .iter()
        .map(|r| format!("(source = '{}' AND record_id = '{}')", r[0], r[1]))
        .collect();
    let is_mine = is_mine.join(" OR ");
    let values: Vec<String> = csv(
        &w,
        &format!(
            "SELECT DISTINCT id_value FROM identifiers WHERE ({is_mine}) AND length(id_value) > 6 \
             AND id_value NOT IN (SELECT id_value FROM identifiers WHERE NOT ({is_mine}) AND id_value IS NOT NULL)"
        ),
    )
    .into_iter()
    .map(|row| row[0].clone())
    .collect();
    assert!(values.len() >= 2, "{values:?}");
    assert_ne!(finds(&w, &values), Some(false), "the other decoder finds them before");
    let all: Vec<i64> = TABLES
        .iter()
        .map(|table| number(&w, &format!("SELECT count(*) AS n FROM {table}")))
        .collect();
    let theirs = rows_of(&w, &records, "");
    assert!(theirs.iter().sum::<i64>() > 6 && theirs[0] >= 3, "{theirs:?}");
    let version = number(&w, "SELECT max(version) AS v FROM system.versions");

    let erased = run(&[
        "sql",
        "--dir",
        &w,
        &format!("ERASE RECORD {} REASON 'asked for it'", mine.join(", ")),
    ]);
    let told = String::from_utf8_lossy(&erased.stderr).into_owned();
    assert!(erased.status.success(), "{told}");
    assert!(!values.iter().any(|value| told.contains(value)), "{told}");
    let nothing = vec![0; TABLES.len()];
    assert_eq!(rows_of(&w, &records, ""), nothing);
    assert_eq!(rows_of(&w, &records, &format!("VERSION AS OF {version}")), nothing);
    for ((table, before), gone) in TABLES.iter().zip(&all).zip(&theirs) {
        let now = number(&w, &format!("SELECT count(*) AS n FROM {table}"));
        assert_eq!(now, before - gone, "{table}");
    }
    // The files of past versions have them still.
    let checked = run(&["erase", "--dir", &w, "--check"]);
    assert!(String::from_utf8_lossy(&checked.stderr).starts_with("waiting: "), "{checked:?}");
    assert_ne!(finds(&w, &values), Some(false));

    // The same rows in a file that is not the one from before; by INSERT; by a load with a key.
    let again = dir.path().join("again.csv");
    let rows: String =
        records.iter().map(|r| format!("{},{},phone,{}\n", r[0], r[1], values[0])).collect();
    std::fs::write(
        &again,
        format!("source,record_id,id_type,id_value\n{rows}shop,someone,phone,13900000000\n"),
    )
    .unwrap();
    let again = again.display().to_string();
    for key in [&[][..], &["--key", "source,record_id,id_type"][..]] {
        let mut load = vec!["load", "--dir", &w, "identifiers", &again];
        load.extend(key);
        let loaded = run(&load);
        let told = String::from_utf8_lossy(&loaded.stderr).into_owned();
        assert!(loaded.status.success(), "{told}");
        assert!(
            told.contains(&format!("{} of erased records left out", records.len()))
                || told.contains("already"),
            "{told}"
        );
    }
    let (source, record) = (&records[0][0], &records[0][1]);
    run_well(&[
        "sql",
        "--dir",
        &w,
        &format!("INSERT INTO customers (source, record_id) VALUES ('{source}', '{record}')"),
    ]);
    run_well(&["sql", "--dir", &w, "REFRESH IDENTITY GRAPH customer"]);
    assert_eq!(rows_of(&w, &records, ""), nothing);
    assert_eq!(number(&w, "SELECT count(*) AS n FROM identifiers WHERE record_id = 'someone'"), 1);

    // Past versions go too.
    let mut now = vec!["erase", "--dir", &w, "--now", "--source", source];
    now.push(record);
    run_well(&now);
    let checked = run(&["erase", "--dir", &w, "--check"]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(told.starts_with("clean: "), "{told} {}", String::from_utf8_lossy(&checked.stdout));
    assert_ne!(finds(&w, &values), Some(true), "the other decoder finds nothing now");
    let certificates =
        csv(&w, "SELECT verdict, found, waiting FROM system.erasure_checks ORDER BY checked_at");
    assert_eq!(certificates[0][0], "waiting");
    assert_eq!(certificates[1], ["clean", "0", "0"]);
    // What is left is whole.
    assert!(run(&["check", "--dir", &w]).status.success());
    let refused = run(&[
        "sql",
        "--dir",
        &w,
        &format!("SELECT count(*) FROM customers VERSION AS OF {version}"),
    ]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is gone"), "{refused:?}");
    // The logs begin later now than what storage.keep_days asks for.
    run_well(&["sql", "--dir", &w, "VACUUM"]);
    run_well(&["compact", "--dir", &w]);
}

/// A row that slips in behind the sieve's back is found.
#[test]
fn what_is_left_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let sql = "CREATE TABLE people (source TEXT, record_id TEXT, phone TEXT PERSONAL); \
        CREATE TABLE notes (body TEXT); \
        INSERT INTO people VALUES ('web', 'customer-1', '13912345678'), ('web', 'customer-2', '13800001111'), \
            ('app', 'customer-3', '13800001111'); \
        INSERT INTO notes VALUES ('call 13912345678 back'), ('13800001111')";
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, sql]);
    run_well(&["erase", "--dir", &w, "--now", "--source", "web", "customer-1", "customer-2"]);
    let checked = run(&["erase", "--dir", &w, "--check"]);
    assert_eq!(checked.status.code(), Some(1));
    let found = String::from_utf8_lossy(&checked.stdout).into_owned();
    // customer-3 has the other number as well, but a note of it is no row of theirs.
    let notes: Vec<&str> = found.lines().filter(|l| l.contains("public/notes/")).collect();
    assert!(notes.iter().any(|l| l.contains("rows, column body\tphone\t2")), "{found}");
    assert!(!found.contains("public/people/"), "{found}");
    assert!(!found.contains("139123"), "{found}");
    for (sql, told) in [
        ("ERASE RECORD ('web')", "syntax error: ERASE RECORD ('source', 'record_id'), ..."),
        ("ERASE RECORD ('web', 17)", "syntax error"),
        ("ERASE RECORD ('web', '') NOW", "a record has a source and an id"),
        ("VACUUM people", "VACUUM takes away"),
    ] {
        let refused = run(&["sql", "--dir", &w, sql]);
        assert_eq!(refused.status.code(), Some(2), "{sql}");
        let all = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(all.contains(told), "{sql}: {all}");
    }
    let nobody = run(&["erase", "--dir", &w]);
    assert_eq!(nobody.status.code(), Some(2));
    // A question erases nobody.
    let asked = run(&["erase", "--dir", &w, "--source", "app", "--check", "customer-3"]);
    assert_eq!(asked.status.code(), Some(2));
    let people = run_well(&["sql", "--dir", &w, "--format", "csv", "SELECT record_id FROM people"]);
    assert_eq!(people, "record_id\ncustomer-3\n");
}

/// A statement of one process still reads what another erases.
#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_waits_for_statements_that_read_older_versions() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let server = Server::start_in(&w, &[]);
    let mut client = server.connect().await;
    let rows = "CREATE TABLE t AS WITH d(x) AS (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) \
        SELECT 'web' AS source, 'c' || (a.x + 10 * b.x) AS record_id, repeat('x', 100) || f.x AS filler \
        FROM d AS a, d AS b, d AS c, d AS e, d AS f, d AS g";
    client.batch_execute(rows).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let statement = transaction.prepare("SELECT * FROM t").await.unwrap();
    let portal = transaction.bind(&statement, &[]).await.unwrap();
    let first = transaction.query_portal(&portal, 10).await.unwrap();
    assert_eq!(first.len(), 10);
    let path = w.display().to_string();
    let mut erase = program();
    erase.args(["erase", "--dir", &path, "--now", "--source", "web", "c17"]);
    let mut erase = erase.stderr(std::process::Stdio::null()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(erase.try_wait().unwrap().is_none(), "the vacuum waits");
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    assert_eq!(first.len() + rest.len(), 1_000_000);
    transaction.commit().await.unwrap();
    for _ in 0..600 {
        if erase.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(erase.wait().unwrap().success());
    let row =
        client.query_one("SELECT count(*), count(DISTINCT record_id) FROM t", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (990_000, 99));
    assert_eq!(std::fs::read_dir(w.join("public/t")).unwrap().count(), 2, "one file and the log");
}

/// An erasure that leaves no past takes the files of past versions, whose logs may still tell of them: they are gone, not damaged.
#[test]
fn a_past_that_was_taken_away_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE t (source TEXT, record_id TEXT)"]);
    for record in ["a", "b", "c"] {
        run_well(&["sql", "--dir", &w, &format!("INSERT INTO t VALUES ('web', '{record}')")]);
    }
    let version = number(&w, "SELECT max(version) AS v FROM system.versions");
    let then = format!("SELECT count(*) AS n FROM t VERSION AS OF {version}");
    assert_eq!(number(&w, &then), 3);
    run_well(&["sql", "--dir", &w, "ERASE RECORD ('web', 'b') NOW"]);
    assert_eq!(number(&w, "SELECT count(*) AS n FROM t"), 2);
    let refused = run(&["sql", "--dir", &w, &then]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("is gone"), "{said}");
}
