//! Nothing that was acknowledged is lost, nothing is doubled, nothing is seen by half.

use std::process::Stdio;
use std::time::Duration;

use super::server::{program, run_well};

const ROWS: usize = 20_000;

/// Kills loads at forty moments, then loads the same files again.
#[test]
fn killed_loads_leave_all_or_nothing_and_a_repeat_completes_them() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE t (batch BIGINT, n BIGINT)"]);
    let count = || -> Vec<(u64, u64)> {
        let sql = "SELECT batch, count(*) FROM t GROUP BY batch ORDER BY batch";
        let rows = run_well(&["sql", "--dir", &w, "--format", "csv", sql]);
        let pair = |line: &str| {
            line.split_once(',').map(|(b, n)| (b.parse().unwrap(), n.parse().unwrap())).unwrap()
        };
        rows.lines().skip(1).map(pair).collect()
    };
    // How long a load takes here, so that the kills fall everywhere within one.
    let file = |batch: u64| {
        let path = dir.path().join(format!("{batch}.csv"));
        let lines: String = (0..ROWS).map(|n| format!("{batch},{n}\n")).collect();
        std::fs::write(&path, format!("batch,n\n{lines}")).unwrap();
        path.display().to_string()
    };
    let started = std::time::Instant::now();
    run_well(&["load", "--dir", &w, "t", &file(0)]);
    let whole = started.elapsed().max(Duration::from_millis(20));

    let mut acknowledged = vec![0];
    for kill in 1..=40u32 {
        let batch = u64::from(kill);
        let mut load = program();
        let mut child = load
            .args(["load", "--dir", &w, "t", &file(batch)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * (kill % 20) / 16);
        let _ = child.kill();
        if child.wait().unwrap().success() {
            acknowledged.push(batch);
        }
        for (batch, rows) in count() {
            assert_eq!(rows, ROWS as u64, "batch {batch} is seen by half after kill {kill}");
        }
    }
    let seen: Vec<u64> = count().into_iter().map(|(batch, _)| batch).collect();
    for batch in &acknowledged {
        assert!(seen.contains(batch), "batch {batch} was acknowledged and is lost");
    }
    for batch in 1..=40u64 {
        run_well(&[
            "load",
            "--dir",
            &w,
            "t",
            &dir.path().join(format!("{batch}.csv")).display().to_string(),
        ]);
    }
    let expected: Vec<(u64, u64)> = (0..=40).map(|batch| (batch, ROWS as u64)).collect();
    assert_eq!(count(), expected, "a repeat lost or doubled rows");
    let loads = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "csv",
        "SELECT count(*), count(DISTINCT load_id) FROM system.loads",
    ]);
    assert_eq!(loads.lines().nth(1), Some("41,41"));
}

/// Eight processes load into one new table at once: all of them land, and the file that two of them have lands once.
#[test]
fn loads_at_once_all_land() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    let files: Vec<String> = (0..8)
        .map(|n| {
            let path = dir.path().join(format!("{n}.csv"));
            // The last two have the same content.
            std::fs::write(&path, format!("n\n{}\n", n.min(6))).unwrap();
            path.display().to_string()
        })
        .collect();
    let children: Vec<_> = files
        .iter()
        .map(|file| {
            program().args(["load", "--dir", &w, "t", file]).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let rows = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "csv",
        "SELECT count(*), count(DISTINCT n), sum(n) FROM t",
    ]);
    assert_eq!(rows.lines().nth(1), Some("7,7,21"));
}

/// A version of the warehouse is read as it was, table by table, in one statement with the present.
#[test]
fn past_versions_are_read_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w").display().to_string();
    std::fs::write(dir.path().join("a.csv"), "a\n1\n").unwrap();
    run_well(&["load", "--dir", &path, "t", &dir.path().join("a.csv").display().to_string()]);
    let one = |sql: &str| run_well(&["sql", "--dir", &path, "--format", "csv", sql]);
    let version = "SELECT max(version) AS v FROM system.versions WHERE relation = 't'";
    let first = one(version).lines().nth(1).unwrap().to_owned();
    run_well(&["sql", "--dir", &path, "INSERT INTO t VALUES (2), (3)"]);
    let both = format!(
        "SELECT then.n || '/' || now.n AS n FROM (SELECT count(*) AS n FROM t VERSION AS OF {first}) AS then, (SELECT count(*) AS n FROM t) AS now"
    );
    assert_eq!(one(&both), "n\n1/3\n");
}
