//! Copies of a warehouse are backups, and what was published can be published again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::server::{Server, csv, python_with, run, run_well};

/// All rows of an answer, in one line.
fn line(dir: &str, sql: &str) -> String {
    csv(dir, sql).iter().map(|row| row.join(",")).collect::<Vec<_>>().join(" ")
}

/// A backup as the documentation says: `_clientele` first, then everything else.
fn back_up(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let copied = |what: &Path| {
        Command::new("cp")
            .arg("-a")
            .arg(what)
            .arg(to)
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
    };
    assert!(copied(&from.join("_clientele")).success());
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "_clientele" {
            // A file that is deleted while it is copied is of no version that the copy names.
            copied(&entry.path());
        }
    }
}

const BATCH: i64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_taken_while_rows_come_in_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let server = Server::start_in(&w, &[]);
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (batch BIGINT, n BIGINT)").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (client, stop) = (server.connect().await, Arc::clone(&stop));
        tokio::spawn(async move {
            let mut batch = 0i64;
            while !stop.load(Ordering::Relaxed) {
                let insert = format!(
                    "INSERT INTO t SELECT {batch}, x FROM generate_series(1, {BATCH}) AS s(x)"
                );
                client.batch_execute(&insert).await.unwrap();
                batch += 1;
                if batch % 7 == 0 {
                    let other = format!("CREATE TABLE other_{batch} AS SELECT {batch} AS n");
                    client.batch_execute(&other).await.unwrap();
                }
            }
            batch
        })
    };
    let mut copies = Vec::new();
    for i in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let to = dir.path().join(format!("copy{i}"));
        let from = w.clone();
        let target = to.clone();
        tokio::task::spawn_blocking(move || back_up(&from, &target)).await.unwrap();
        copies.push(to.display().to_string());
    }
    stop.store(true, Ordering::Relaxed);
    let batches = writer.await.unwrap();
    let all: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(all, batches * BATCH);
    for copy in &copies {
        let rows: i64 = line(copy, "SELECT count(*) AS n FROM t").parse().unwrap();
        let in_batches = line(
            copy,
            "SELECT count(*) AS n FROM (SELECT batch FROM t GROUP BY batch HAVING count(*) = 500) AS b",
        );
        assert_eq!(rows, in_batches.parse::<i64>().unwrap() * BATCH, "{copy}");
        assert!(run(&["check", "--files", "--dir", copy]).status.success(), "{copy}");
        run_well(&["sql", "--dir", copy, "INSERT INTO t VALUES (-1, 1)"]);
        let after: i64 = line(copy, "SELECT count(*) AS n FROM t").parse().unwrap();
        assert_eq!(after, rows + 1, "nothing of what was under way comes up later");
        assert!(run(&["check", "--files", "--dir", copy]).status.success(), "{copy}");
    }
    // The original does not know of them.
    let again: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(again, all);
}

#[test]
fn a_bad_load_is_taken_back_and_can_be_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let file = |name: &str, rows: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("a,b\n{rows}")).unwrap();
        path.display().to_string()
    };
    let (good, bad) = (file("good.csv", "1,x\n2,y\n"), file("bad.csv", "3,wrong\n4,wrong\n"));
    run_well(&["load", "--dir", &w, "t", &good]);
    let version = line(&w, "SELECT max(version) AS v FROM system.versions");
    let at = line(&w, "SELECT max(published_at)::text AS v FROM system.versions");
    run_well(&["load", "--dir", &w, "t", &bad]);
    run_well(&[
        "sql",
        "--dir",
        &w,
        "ALTER TABLE t ADD COLUMN c TEXT; INSERT INTO t VALUES (5, 'z', 'c'); CREATE VIEW v AS SELECT * FROM t",
    ]);
    assert_eq!(line(&w, "SELECT count(*) AS n FROM t"), "5");
    let restored =
        run(&["sql", "--dir", &w, &format!("RESTORE TABLE t TO VERSION AS OF {version}")]);
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(line(&w, "SELECT a, b FROM t ORDER BY a"), "1,x 2,y");
    assert!(
        run(&["sql", "--dir", &w, "SELECT c FROM t"]).status.code() == Some(2),
        "the column is gone"
    );
    let loaded =
        |path: &str| String::from_utf8(run(&["load", "--dir", &w, "t", path]).stderr).unwrap();
    assert!(loaded(&good).contains("already loaded"));
    let twice = line(&w, "SELECT max(version) AS v FROM system.versions");
    assert!(loaded(&bad).contains("2 rows loaded"));
    assert!(loaded(&bad).contains("already loaded"));
    assert_eq!(line(&w, "SELECT count(*) AS n FROM t"), "4");
    // Back and forth: a table knows the loads whose rows it has.
    let with_it = line(&w, "SELECT max(version) AS v FROM system.versions");
    run_well(&["sql", "--dir", &w, &format!("RESTORE TABLE t TO VERSION AS OF {twice}")]);
    run_well(&["sql", "--dir", &w, &format!("RESTORE TABLE t TO VERSION AS OF {with_it}")]);
    assert!(loaded(&bad).contains("already loaded"));
    assert_eq!(line(&w, "SELECT count(*) AS n FROM t"), "4");

    // Everything, by time: what was dropped comes back, what was made goes.
    run_well(&["sql", "--dir", &w, "DROP VIEW v; DROP TABLE t; CREATE TABLE u AS SELECT 1 AS x"]);
    run_well(&["sql", "--dir", &w, &format!("RESTORE WAREHOUSE TO TIMESTAMP AS OF '{at}'")]);
    assert_eq!(line(&w, "SELECT a, b FROM t ORDER BY a"), "1,x 2,y");
    assert_eq!(run(&["sql", "--dir", &w, "SELECT * FROM u"]).status.code(), Some(2));
    assert!(run(&["check", "--files", "--dir", &w]).status.success());
    for (sql, told) in [
        ("RESTORE TABLE t TO VERSION AS OF 999", "the warehouse has no version 999"),
        ("RESTORE TABLE nothing TO VERSION AS OF 1", "there was no table \"nothing\""),
        ("RESTORE TABLE t TO YESTERDAY", "syntax error: RESTORE TABLE name"),
        ("RESTORE TABLE t TO TIMESTAMP AS OF 'noon'", "needs a time such as"),
        ("RESTORE TABLE system.erased TO VERSION AS OF 1", "belongs to the warehouse"),
    ] {
        let refused = run(&["sql", "--dir", &w, sql]);
        assert_eq!(refused.status.code(), Some(2), "{sql}");
        let all = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(all.contains(told), "{sql}: {all}");
    }
}

/// Loads and restores at once, from different processes: in the end a table has each file once, or takes it when it is loaded again.
#[test]
fn what_is_loaded_beside_a_restore_is_there_or_can_be_loaded_again() {
    const FILES: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let files: Vec<String> = (0..FILES)
        .map(|n| {
            let path = dir.path().join(format!("{n}.csv"));
            std::fs::write(&path, format!("n\n{n}\n")).unwrap();
            path.display().to_string()
        })
        .collect();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE t (n BIGINT); CREATE TABLE u (n BIGINT)"]);
    let version = line(&w, "SELECT max(version) AS v FROM system.versions");
    std::thread::scope(|scope| {
        let loads = scope.spawn(|| {
            for file in &files {
                run_well(&["load", "--dir", &w, "t", file]);
                run_well(&["load", "--dir", &w, "u", file]);
            }
        });
        let mut restores = 0;
        while !loads.is_finished() {
            let tables = if restores % 2 == 0 { "t" } else { "t, u" };
            let sql = format!("RESTORE TABLE {tables} TO VERSION AS OF {version}");
            run_well(&["sql", "--dir", &w, &sql]);
            restores += 1;
        }
        assert!(restores > 1);
    });
    for table in ["t", "u"] {
        for file in &files {
            run_well(&["load", "--dir", &w, table, file]);
        }
        let sql = format!("SELECT count(*) AS n, count(DISTINCT n) AS d FROM {table}");
        assert_eq!(line(&w, &sql), format!("{FILES},{FILES}"));
    }
}

/// Who was erased does not come back with what was published before.
#[test]
fn a_restore_brings_nobody_back() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&[
        "sql",
        "--dir",
        &w,
        "CREATE TABLE p (source TEXT, record_id TEXT); INSERT INTO p VALUES ('web', 'one'), ('web', 'two')",
    ]);
    let version = line(&w, "SELECT max(version) AS v FROM system.versions");
    run_well(&["erase", "--dir", &w, "--source", "web", "one"]);
    for to in [
        format!("RESTORE TABLE p TO VERSION AS OF {version}"),
        format!("RESTORE WAREHOUSE TO VERSION AS OF {version}"),
    ] {
        run_well(&["sql", "--dir", &w, &to]);
        assert_eq!(line(&w, "SELECT record_id FROM p"), "two", "{to}");
    }
    run_well(&["compact", "--dir", &w]);
    assert_eq!(line(&w, "SELECT count(*) AS n FROM p"), "1");
    let checked = run(&["erase", "--check", "--dir", &w]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// A report's rows are not told by a record's key: they do not come back to where somebody was in them who was forgotten since.
#[test]
fn a_restore_brings_nobody_back_into_reports() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    for sql in [
        "CREATE TABLE crm (source TEXT, record_id TEXT, phone TEXT); INSERT INTO crm VALUES ('web', '1', '15400000001'), ('web', '2', '15400000009')",
        "CREATE IDENTITY GRAPH g FROM crm (source, record_id) IDS (phone); REFRESH IDENTITY GRAPH g",
        "CREATE MATERIALIZED VIEW rep AS SELECT m.one_id, c.phone FROM crm AS c JOIN g.map AS m ON m.source = c.source AND m.record_id = c.record_id",
    ] {
        run_well(&["sql", "--dir", &w, sql]);
    }
    let version = line(&w, "SELECT max(version) AS v FROM system.versions");
    let forget =
        "FORGET CUSTOMER (SELECT oneid('g', 'phone', '15400000001')) OF g REASON 'asked for it'";
    run_well(&["sql", "--dir", &w, forget]);
    assert_eq!(line(&w, "SELECT phone FROM rep"), "15400000009");
    for table in ["rep", "g.map"] {
        let alone = format!("RESTORE TABLE {table} TO VERSION AS OF {version}");
        assert_eq!(run(&["sql", "--dir", &w, &alone]).status.code(), Some(2), "{table}");
    }
    let then = run(&["sql", "--dir", &w, &format!("SELECT * FROM rep VERSION AS OF {version}")]);
    assert_eq!(then.status.code(), Some(2));
    let told = String::from_utf8_lossy(&then.stderr).into_owned();
    assert!(told.contains("is gone") && told.contains("somebody was erased since"), "{told}");
    let now = line(&w, "SELECT max(version) AS v FROM system.versions");
    assert_eq!(line(&w, &format!("SELECT phone FROM rep VERSION AS OF {now}")), "15400000009");
    run_well(&["sql", "--dir", &w, &format!("RESTORE WAREHOUSE TO VERSION AS OF {version}")]);
    assert_eq!(line(&w, "SELECT phone FROM rep"), "15400000009");
    let known = "SELECT oneid('g', 'phone', '15400000001') IS NULL AS forgotten, oneid('g', 'phone', '15400000009') IS NULL AS known";
    assert_eq!(line(&w, known), "t,f");
    assert_eq!(line(&w, "SELECT count(*) AS n FROM crm"), "1");
    run_well(&["sql", "--dir", &w, "REFRESH IDENTITY GRAPH g; REFRESH MATERIALIZED VIEW rep"]);
    assert_eq!(line(&w, "SELECT phone FROM rep"), "15400000009");
    assert_eq!(line(&w, "SELECT count(*) AS n FROM g.map"), "1");
}

/// Between an erasure and the next refresh a report and a graph are those of before it: they do not come back either, and nothing comes
/// back by half.
#[test]
fn what_was_computed_before_an_erasure_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    let sql = |text: &str| run_well(&["sql", "--dir", &w, text]);
    let told = |text: &str| {
        let refused = run(&["sql", "--dir", &w, text]);
        assert_eq!(refused.status.code(), Some(2), "{text}");
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let version = || line(&w, "SELECT max(version) AS v FROM system.versions");
    sql("CREATE TABLE crm (source TEXT, record_id TEXT, phone TEXT)");
    sql("INSERT INTO crm VALUES ('web', 'a', '15400000001'), ('web', 'b', '15400000002')");
    let bare = version();
    let rep = "CREATE MATERIALIZED VIEW rep AS SELECT record_id AS rid, phone FROM crm";
    let gone = "CREATE AUDIENCE gone AS SELECT one_id FROM g.map";
    sql(rep);
    sql(
        "CREATE IDENTITY GRAPH g FROM crm (source, record_id) IDS (phone); REFRESH IDENTITY GRAPH g",
    );
    sql("CREATE AUDIENCE au AS SELECT one_id FROM g.map");
    sql(gone);
    let whole = version();
    sql("DROP AUDIENCE gone; ERASE RECORD ('web', 'a')");
    let between = version();
    sql("REFRESH MATERIALIZED VIEW rep; REFRESH IDENTITY GRAPH g; REFRESH AUDIENCE au");
    let known = "SELECT oneid('g', 'phone', '15400000001') IS NULL AS forgotten, oneid('g', 'phone', '15400000002') IS NULL AS known";
    for then in [&whole, &between] {
        for table in ["rep", "g.identifiers"] {
            let past = told(&format!("SELECT * FROM {table} VERSION AS OF {then}"));
            assert!(past.contains("is gone"), "{table}: {past}");
        }
        sql(&format!("RESTORE WAREHOUSE TO VERSION AS OF {then}"));
        assert_eq!(line(&w, "SELECT phone FROM rep"), "15400000002", "{then}");
        assert_eq!(line(&w, known), "t,f", "{then}");
        assert_eq!(line(&w, "SELECT count(*) AS n FROM au"), "1", "{then}");
    }
    sql(gone);
    sql("REFRESH MATERIALIZED VIEW rep; REFRESH IDENTITY GRAPH g");
    assert_eq!(line(&w, "SELECT count(*) AS n FROM g.map"), "1");
    // What has the name of one that does not come back came later.
    sql("DROP MATERIALIZED VIEW rep; CREATE TABLE rep AS SELECT 9 AS n; DROP IDENTITY GRAPH g");
    let restored =
        run(&["sql", "--dir", &w, &format!("RESTORE WAREHOUSE TO VERSION AS OF {whole}")]);
    let notice = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(notice.contains("not brought back") && notice.contains(": rep (CREATE"), "{notice}");
    assert!(told("SELECT * FROM rep").contains("does not exist"));
    sql("REFRESH IDENTITY GRAPH g");
    assert_eq!(line(&w, "SELECT count(*) AS n FROM g.map"), "1");
    assert_eq!(line(&w, known), "t,f");
    sql(rep);
    assert_eq!(line(&w, "SELECT phone FROM rep"), "15400000002");
    // What came later goes, all of it.
    sql(&format!("RESTORE WAREHOUSE TO VERSION AS OF {bare}"));
    for name in ["rep", "au", "gone", "g.map"] {
        assert!(told(&format!("SELECT * FROM {name}")).contains("does not exist"), "{name}");
    }
    sql(rep);
    sql("CREATE AUDIENCE au AS SELECT 5 AS one_id");
    assert_eq!(line(&w, "SELECT phone FROM rep"), "15400000002");
}

/// What came later under a name of then gives way, and is told of; it comes back as everything does.
#[test]
fn a_restore_of_everything_takes_names_that_others_have_now() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    let sql = |text: &str| {
        let done = run(&["sql", "--dir", &w, text]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let version = || line(&w, "SELECT max(version) AS v FROM system.versions");
    sql("CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE s AS SELECT 1 AS a");
    sql("CREATE TABLE crm AS SELECT 'web' AS source, '1' AS record_id, '15400000001' AS phone");
    sql(
        "CREATE IDENTITY GRAPH g FROM crm (source, record_id) IDS (phone); REFRESH IDENTITY GRAPH g",
    );
    let then = version();
    sql(
        "DROP TABLE t; CREATE TABLE t AS SELECT 2 AS b; DROP TABLE s; CREATE VIEW s AS SELECT 3 AS c",
    );
    sql(
        "CREATE TABLE u AS SELECT 4 AS d; ALTER TABLE crm ADD COLUMN e TEXT; CREATE VIEW later AS SELECT e FROM crm",
    );
    sql(
        "DROP IDENTITY GRAPH g; CREATE IDENTITY GRAPH g FROM crm (source, record_id) IDS (phone); REFRESH IDENTITY GRAPH g",
    );
    let later = version();
    let alone = run(&["sql", "--dir", &w, &format!("RESTORE TABLE t TO VERSION AS OF {then}")]);
    let told = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(told.contains("another relation has the name \"t\" now"), "{told}");
    let told = sql(&format!("RESTORE TABLE crm TO VERSION AS OF {then}"));
    assert!(told.contains("views that want what is not there any more: later"), "{told}");
    let told = sql(&format!("RESTORE WAREHOUSE TO VERSION AS OF {then}"));
    assert!(told.contains("dropped, for they came later: later, u;"), "{told}");
    assert_eq!(line(&w, "SELECT t.a, s.a FROM t, s"), "1,1");
    assert_eq!(line(&w, "SELECT count(*) AS n FROM g.map"), "1");
    sql("REFRESH IDENTITY GRAPH g");
    sql(&format!("RESTORE WAREHOUSE TO VERSION AS OF {later}"));
    assert_eq!(line(&w, "SELECT t.b, s.c, u.d FROM t, s, u"), "2,3,4");
    assert_eq!(line(&w, "SELECT count(*) AS n FROM later"), "1");
    let told = sql(&format!("RESTORE WAREHOUSE TO VERSION AS OF {}", version()));
    assert!(told.contains("nothing else has changed since version"), "{told}");
    assert!(run(&["check", "--files", "--dir", &w]).status.success());
}

/// A table of the same name in the same folder is not the one that was dropped.
#[test]
fn what_was_dropped_and_vacuumed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, "[storage]\nkeep_days = 0\n").unwrap();
    let config = config.display().to_string();
    let sql = |text: &str| run_well(&["sql", "--dir", &w, "--config", &config, text]);
    sql("CREATE TABLE t AS SELECT 1 AS n");
    let version = line(&w, "SELECT max(version) AS v FROM system.versions");
    sql("DROP TABLE t");
    sql("VACUUM");
    let back = format!("RESTORE TABLE t TO VERSION AS OF {version}");
    let told = |text: &str| {
        let refused = run(&["sql", "--dir", &w, text]);
        assert_eq!(refused.status.code(), Some(2), "{text}");
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    assert!(told(&back).contains("is gone"), "{}", told(&back));
    sql("CREATE TABLE t AS SELECT 2 AS n");
    for text in [back, format!("SELECT * FROM t VERSION AS OF {version}")] {
        assert!(told(&text).contains("is gone"), "{}", told(&text));
    }
    assert_eq!(line(&w, "SELECT n FROM t"), "2");
}

/// Others read the same table and get the same, after every kind of change.
#[test]
fn other_programs_read_the_same() {
    let Some(python) = python_with("deltalake") else { return };
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    let made = "CREATE TABLE t (source TEXT, record_id TEXT, at TIMESTAMPTZ, n BIGINT) CLUSTER BY (source, record_id, at); \
        INSERT INTO t SELECT 'web', 'c' || (x % 50), TIMESTAMPTZ '2024-01-01 00:00Z' + x * INTERVAL '1 minute', x FROM generate_series(1, 2000) AS s(x)";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/reads.py");
    for change in [
        made,
        "COMPACT TABLE t",
        "INSERT INTO t VALUES ('web', 'c1', '2025-01-01 00:00Z', 7)",
        "ALTER TABLE t ADD COLUMN extra TEXT",
        "INSERT INTO t VALUES ('web', 'c2', '2025-01-01 00:00Z', 8, 'x')",
        "ERASE RECORD ('web', 'c7') NOW",
        "COMPACT TABLE t",
    ] {
        run_well(&["sql", "--dir", &w, change]);
        let ours = line(&w, "SELECT count(*) || ' ' || sum(n) AS a FROM t");
        let folder = format!("{w}/public/t");
        let output = Command::new(&python).arg(&script).args([&folder, "n"]).output().unwrap();
        let theirs = String::from_utf8(output.stdout).unwrap();
        assert!(!theirs.is_empty(), "{change}: {}", String::from_utf8_lossy(&output.stderr));
        for line in theirs.lines() {
            assert_eq!(line.split_once(' ').unwrap().1, ours, "{change}: {line}");
        }
    }
}
