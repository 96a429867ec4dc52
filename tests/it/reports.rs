//! Reports that are kept: by the clock, after loads, under kills, as files, and what they read.

use std::collections::BTreeSet;
use std::time::Duration;

use super::server::{Server, SmallDisk, csv, number, program, python_with, run, run_well};

fn warehouse() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &path, "list"]);
    (dir, path)
}

fn sql(dir: &str, sql: &str) {
    run_well(&["sql", "--dir", dir, sql]);
}

/// Asks every 100 ms until `is_so`, for at most 30 seconds.
async fn eventually(
    client: &tokio_postgres::Client,
    sql: &str,
    is_so: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..300 {
        let messages = client.simple_query(sql).await.unwrap();
        seen = { messages.iter() }
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    let values = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL"));
                    Some(values.collect::<Vec<_>>().join(" "))
                }
                _ => None,
            })
            .collect();
        if is_so(&seen) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{sql}: still {seen:?}")
}

/// While a disk takes nothing the state says so, though it cannot be written down, and the rows from before are served.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_shows_in_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 16) else { return };
    let server = Server::start_in(&disk.0.join("w"), &[]);
    let client = server.connect().await;
    for statement in [
        "CREATE TABLE t AS SELECT 1 AS a",
        "CREATE MATERIALIZED VIEW asked AS SELECT count(*) AS n FROM t",
        "CREATE MATERIALIZED VIEW timed SCHEDULE CRON '*/2 * * * * *' AS SELECT count(*) AS n FROM t",
    ] {
        client.simple_query(statement).await.unwrap();
    }
    let state = |name: &str| {
        format!(
            "SELECT state, coalesce(last_error_code, '-') FROM reports.status WHERE name = '{name}'"
        )
    };
    let timed_runs =
        "SELECT 1 FROM reports.runs WHERE started_by = 'schedule' AND state = 'SUCCEEDED'";
    eventually(&client, timed_runs, |rows| !rows.is_empty()).await;

    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let refused = client.batch_execute("REFRESH MATERIALIZED VIEW asked").await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("53100"), "{refused:?}");
    eventually(&client, &state("asked"), |rows| rows == ["FAILED 53100"]).await;
    eventually(&client, &state("timed"), |rows| rows == ["RETRYING 53100"]).await;
    for name in ["asked", "timed"] {
        let rows = client.query_one(&format!("SELECT n FROM {name}"), &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 1);
    }

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let written = "SELECT started_by, state, error_code FROM reports.runs WHERE report = 'asked' AND error IS NOT NULL";
    eventually(&client, written, |rows| rows == ["hand FAILED 53100"]).await;
    eventually(&client, &state("timed"), |rows| rows == ["SCHEDULED -"]).await;
    assert_eq!(
        eventually(&client, &state("asked"), |rows| !rows.is_empty()).await,
        ["FAILED 53100"]
    );
    client.batch_execute("REFRESH MATERIALIZED VIEW asked").await.unwrap();
    assert_eq!(eventually(&client, &state("asked"), |rows| !rows.is_empty()).await, ["MANUAL -"]);
}

/// A server runs what is due, in the order in which reports depend on each other, and statements of cron.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_runs_what_is_due() {
    let server = Server::start();
    let client = server.connect().await;
    for statement in [
        "CREATE TABLE t (a BIGINT)",
        "INSERT INTO t VALUES (1), (2)",
        "CREATE MATERIALIZED VIEW first SCHEDULE CRON '*/2 * * * * *' AS SELECT report_asof() AS day, sum(a) AS total FROM t WITH NO DATA",
        "CREATE MATERIALIZED VIEW second SCHEDULE CRON '*/2 * * * * *' AS SELECT total + 1 AS more FROM first WITH NO DATA",
        "CREATE MATERIALIZED VIEW broken SCHEDULE CRON '*/2 * * * * *' AS SELECT 1 / (sum(a) - 3) AS x FROM t WITH NO DATA",
        "CREATE MATERIALIZED VIEW below SCHEDULE CRON '*/2 * * * * *' AS SELECT x FROM broken WITH NO DATA",
        "SELECT cron.schedule('note', '*/2 * * * * *', 'CREATE TABLE IF NOT EXISTS noted AS SELECT 7 AS n')",
    ] {
        client.simple_query(statement).await.unwrap();
    }
    eventually(
        &client,
        "SELECT state FROM reports.runs WHERE report = 'second' AND state = 'SUCCEEDED'",
        |rows| !rows.is_empty(),
    )
    .await;
    let more = client.query_one("SELECT more FROM second", &[]).await.unwrap();
    assert_eq!(more.get::<_, Option<i64>>(0).or(Some(0)), Some(4));
    let runs = "SELECT DISTINCT started_by, state FROM reports.runs WHERE report = 'first'";
    assert_eq!(eventually(&client, runs, |rows| !rows.is_empty()).await, ["schedule SUCCEEDED"]);
    // Division by zero is nobody's passing trouble: it is not tried again, the report below does not run, and after five slots
    // it is held.
    let upstream = "SELECT DISTINCT state, error_code FROM reports.runs WHERE report = 'below'";
    assert_eq!(
        eventually(&client, upstream, |rows| !rows.is_empty()).await,
        ["UPSTREAM_FAILED 55000"]
    );
    let held = "SELECT state, consecutive_failures, last_error_code FROM reports.status WHERE name = 'broken' AND state = 'SUSPENDED'";
    assert_eq!(eventually(&client, held, |rows| !rows.is_empty()).await, ["SUSPENDED 5 22012"]);
    let slots =
        "SELECT count(*), count(DISTINCT scheduled_for) FROM reports.runs WHERE report = 'broken'";
    assert_eq!(eventually(&client, slots, |rows| !rows.is_empty()).await, ["5 5"]);
    eventually(&client, "SELECT status, return_message FROM cron.job_run_details", |rows| {
        rows.first().is_some_and(|row| row.starts_with("succeeded "))
    })
    .await;
    assert_eq!(eventually(&client, "SELECT n FROM noted", |rows| !rows.is_empty()).await, ["7"]);
}

/// Rows that come in start a report once they have been still; a compaction starts none.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_starts_a_report() {
    let server = Server::start();
    let client = server.connect().await;
    for statement in [
        "CREATE TABLE t (a BIGINT, b BIGINT) CLUSTER BY (a)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE MATERIALIZED VIEW total SCHEDULE AFTER LOAD t AS SELECT sum(b) AS total FROM t",
        "INSERT INTO t VALUES (2, 2)",
        "INSERT INTO t VALUES (3, 3)",
    ] {
        client.simple_query(statement).await.unwrap();
    }
    let loads = "SELECT count(*) FROM reports.runs WHERE started_by = 'load'";
    eventually(&client, loads, |rows| rows[0] == "1").await;
    assert_eq!(
        eventually(&client, "SELECT total FROM total", |rows| !rows.is_empty()).await,
        ["6"]
    );
    client.simple_query("COMPACT TABLE t").await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(eventually(&client, loads, |rows| !rows.is_empty()).await, ["1"]);
}

/// A refresh that is killed at any moment leaves the old rows or the new ones, and the next one finds its way.
#[test]
fn kills_leave_the_old_rows_or_the_new() {
    let kills: u32 =
        { std::env::var("CLIENTELE_TEST_KILLS").ok() }.and_then(|n| n.parse().ok()).unwrap_or(10);
    let (_dir, w) = warehouse();
    sql(&w, "CREATE TABLE t AS SELECT value AS a FROM generate_series(1, 300000) AS s(value)");
    sql(
        &w,
        "CREATE MATERIALIZED VIEW r AS SELECT report_asof() AS day, a, a * 2 AS b FROM t WITH NO DATA",
    );
    sql(
        &w,
        "CREATE MATERIALIZED VIEW h WITH (mode = 'snapshot') AS SELECT a % 1000 AS k, count(*) AS n FROM t GROUP BY 1 WITH NO DATA",
    );
    run_well(&["refresh", "--dir", &w, "r", "h", "--as-of", "2024-01-01"]);
    let mut published = BTreeSet::new();
    for kill in 0..kills {
        let day = format!("2024-02-{:02}", kill % 28 + 1);
        let mut child = program()
            .args(["refresh", "--dir", &w, "r", "h", "--as-of", &day])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(kill * 37 % 600)));
        child.kill().unwrap();
        child.wait().unwrap();
        let rows = csv(&w, "SELECT day, count(*), sum(b) FROM r GROUP BY day");
        assert_eq!(rows.len(), 1, "kill {kill}: {rows:?}");
        assert_eq!(rows[0][1..], ["300000", "90000300000"], "kill {kill}");
        published.insert(rows[0][0].clone());
        let mixed = number(
            &w,
            "SELECT count(*) FROM (SELECT as_of FROM h GROUP BY as_of HAVING count(*) <> 1000 OR sum(n) <> 300000) AS wrong",
        );
        assert_eq!(mixed, 0, "kill {kill}");
    }
    run_well(&["refresh", "--dir", &w, "r", "h", "--as-of", "2024-03-01"]);
    assert_eq!(csv(&w, "SELECT DISTINCT day FROM r")[0][0], "2024-03-01");
    assert_eq!(number(&w, "SELECT count(*) FROM h WHERE as_of = '2024-03-01'"), 1000);
    run_well(&["check", "--dir", &w, "--files"]);
    assert!(!published.is_empty());
}

/// After one new day an incremental report reads that day, and not the years before it.
#[test]
fn an_incremental_report_reads_what_is_new() {
    let (_dir, w) = warehouse();
    sql(
        &w,
        "CREATE TABLE e AS SELECT TIMESTAMPTZ '2024-01-01' + value * INTERVAL '30 seconds' AS occurred_at, value % 977 AS one_id, value AS v FROM generate_series(1, 1000000) AS s(value)",
    );
    sql(
        &w,
        "CREATE MATERIALIZED VIEW d WITH (mode = 'incremental', time = 'day') AS SELECT occurred_at::date AS day, count(*) AS n, count(DISTINCT one_id) AS users, sum(v) AS v FROM e WHERE occurred_at >= report_from() AND occurred_at < report_to() + 1 GROUP BY 1 WITH NO DATA",
    );
    run_well(&["refresh", "--dir", &w, "d", "--as-of", "2024-12-12"]);
    sql(
        &w,
        "INSERT INTO e SELECT TIMESTAMPTZ '2024-12-14' + value * INTERVAL '1 second', value % 977, value FROM generate_series(1, 1000) AS s(value)",
    );
    run_well(&["refresh", "--dir", &w, "d", "--as-of", "2024-12-14"]);
    let read = csv(&w, "SELECT bytes_read, rows FROM reports.runs ORDER BY started_at");
    let bytes = |at: usize| read[at][0].parse::<u64>().unwrap();
    assert!(bytes(1) * 5 < bytes(0), "{read:?}");
    assert_eq!(read[1][1], "2");
    let wrong = number(
        &w,
        "SELECT count(*) FROM (SELECT occurred_at::date AS day, count(*) AS n, count(DISTINCT one_id) AS users, sum(v) AS v FROM e GROUP BY 1 EXCEPT SELECT * FROM d) AS x",
    );
    assert_eq!(wrong, 0);
    assert_eq!(
        number(&w, "SELECT count(*) FROM d"),
        number(&w, "SELECT count(DISTINCT occurred_at::date) FROM e")
    );
}

/// Results leave as files, whole, below the configured folders only.
#[test]
fn results_are_written_as_files() {
    let (dir, w) = warehouse();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let toml = format!("[export]\nroots = [{:?}]\n", out.display().to_string());
    std::fs::write(dir.path().join("w/clientele.toml"), toml).unwrap();
    sql(&w, "CREATE TABLE t AS SELECT 1 AS a, 'x,\"y' AS b, NULL::text AS c");
    for (name, file) in [("c", "r_{as_of}.csv"), ("j", "r.jsonl"), ("p", "r.parquet")] {
        sql(
            &w,
            &format!(
                "SET as_of = '2024-01-02'; CREATE MATERIALIZED VIEW {name} ON SUCCESS EXPORT TO '{file}' AS SELECT * FROM t"
            ),
        );
    }
    let text = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(text("r_2024-01-02.csv"), "a,b,c\n1,\"x,\"\"y\",\n");
    assert_eq!(text("r.jsonl"), "{\"a\":1,\"b\":\"x,\\\"y\",\"c\":null}\n");
    run_well(&["load", "--dir", &w, "back", &out.join("r.parquet").display().to_string()]);
    assert_eq!(csv(&w, "SELECT a, c FROM back")[0], ["1", ""]);
    assert_eq!(
        csv(&w, "SELECT exported_to FROM reports.runs WHERE report = 'c'")[0][0],
        "r_2024-01-02.csv"
    );
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
    for path in ["../out2/x.csv", "/etc/x.csv", "r.xls"] {
        let refused = run(&[
            "sql",
            "--dir",
            &w,
            &format!("CREATE MATERIALIZED VIEW x ON SUCCESS EXPORT TO '{path}' AS SELECT 1 AS a"),
        ]);
        assert_eq!(refused.status.code(), Some(2), "{path}");
    }
    // Where the file cannot be written nothing is published.
    std::fs::remove_dir_all(&out).unwrap();
    assert_eq!(run(&["refresh", "--dir", &w, "c", "--as-of", "2024-01-03"]).status.code(), Some(2));
    assert_eq!(
        csv(&w, "SELECT data_asof, state FROM reports.status WHERE name = 'c'")[0],
        ["2024-01-02", "FAILED"]
    );
}

/// A backfill that is broken off goes on where it was.
#[test]
fn a_backfill_goes_on_where_it_was() {
    let (_dir, w) = warehouse();
    sql(&w, "CREATE TABLE t AS SELECT value AS a FROM generate_series(0, 99) AS s(value)");
    sql(
        &w,
        "CREATE MATERIALIZED VIEW h WITH (mode = 'snapshot') AS SELECT sum(a) / (report_asof() - DATE '2024-01-05') AS x FROM t WITH NO DATA",
    );
    // On the fifth the query divides by nothing.
    let broken = run(&["refresh", "--dir", &w, "h", "--from", "2024-01-03", "--to", "2024-01-08"]);
    assert_eq!(broken.status.code(), Some(2));
    assert_eq!(number(&w, "SELECT count(*) FROM h"), 2);
    sql(&w, "DELETE FROM t");
    let on = run(&["refresh", "--dir", &w, "h", "--from", "2024-01-03", "--to", "2024-01-08"]);
    let said = String::from_utf8_lossy(&on.stderr).into_owned();
    assert!(said.contains("4 periods computed, 2 were there from before"), "{said}");
    assert_eq!(csv(&w, "SELECT count(*), count(x) FROM h")[0], ["6", "2"]);
}

/// BI tools that stand on SQLAlchemy see tables, views and reports apart, and their columns.
#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_reflects_what_is_there() {
    let Some(python) = python_with("sqlalchemy, psycopg") else { return };
    let server = Server::start();
    let client = server.connect().await;
    for statement in [
        "CREATE TABLE sales (one_id BIGINT, amount NUMERIC(10, 2))",
        "INSERT INTO sales VALUES (1, 10), (2, 5.5)",
        "CREATE VIEW large AS SELECT * FROM sales WHERE amount > 6",
        "CREATE MATERIALIZED VIEW paid AS SELECT one_id, sum(amount) AS paid FROM sales GROUP BY one_id",
    ] {
        client.simple_query(statement).await.unwrap();
    }
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/sqlalchemy_reflects.py");
    let url = format!("postgresql+psycopg://admin@127.0.0.1:{}/clientele", server.port);
    let output = std::process::Command::new(python).arg(script).arg(url).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "tables ['sales']",
        "views ['large']",
        "materialized ['paid']",
        "columns [('one_id', 'BIGINT'), ('paid', 'NUMERIC(20, 2)')]",
        "sum 15.50",
        "job 1",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
}
