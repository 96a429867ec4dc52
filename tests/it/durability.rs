//! Nothing that was acknowledged is lost, nothing is doubled, nothing is seen by half.

use std::process::Stdio;
use std::time::Duration;

use futures::SinkExt;

use super::server::{Server, SmallDisk, code, number, program, run, run_well};

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

    let kills = kills().max(40);
    let mut acknowledged = vec![0];
    for kill in 1..=kills {
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
    for batch in 1..=u64::from(kills) {
        run_well(&[
            "load",
            "--dir",
            &w,
            "t",
            &dir.path().join(format!("{batch}.csv")).display().to_string(),
        ]);
    }
    let expected: Vec<(u64, u64)> =
        (0..=u64::from(kills)).map(|batch| (batch, ROWS as u64)).collect();
    assert_eq!(count(), expected, "a repeat lost or doubled rows");
    let loads = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "csv",
        "SELECT count(*), count(DISTINCT load_id) FROM system.loads",
    ]);
    let all = kills + 1;
    assert_eq!(loads.lines().nth(1), Some(format!("{all},{all}").as_str()));
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

/// Kills of a run in CI; `CLIENTELE_TEST_KILLS=500` is the long one.
fn kills() -> u32 {
    std::env::var("CLIENTELE_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

/// Runs the program and kills it after a while; whether it was done before.
fn kill_after(args: &[&str], wait: Duration) -> bool {
    let mut child = program().args(args).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(wait);
    let _ = child.kill();
    child.wait().unwrap().success()
}

/// Compactions and erasures that are killed lose nothing, double nothing and bring nobody back.
#[test]
fn killed_compactions_and_erasures_leave_the_rows_right() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&[
        "sql",
        "--dir",
        &w,
        "CREATE TABLE e (source TEXT, record_id TEXT, at TIMESTAMPTZ, n BIGINT) CLUSTER BY (source, record_id, at) BUCKETS 2",
    ]);
    let file = |batch: u32| {
        let path = dir.path().join(format!("{batch}.csv"));
        let row = |n: usize| {
            format!(
                "web,c{},2024-01-01 00:00:{:02},{}\n",
                n % 997,
                n % 60,
                u64::from(batch) * 100_000 + n as u64
            )
        };
        let rows: String = (0..ROWS).map(row).collect();
        std::fs::write(&path, format!("source,record_id,at,n\n{rows}")).unwrap();
        path.display().to_string()
    };
    run_well(&["load", "--dir", &w, "e", &file(0)]);
    let compact = ["compact", "--dir", &w, "e"];
    let started = std::time::Instant::now();
    run_well(&compact);
    let whole = started.elapsed().max(Duration::from_millis(20));
    let (mut rows, mut erased) = (ROWS as i64, Vec::new());
    for kill in 1..=kills() {
        let wait = whole * (kill % 11) / 8;
        let path = file(kill);
        run_well(&["load", "--dir", &w, "e", &path]);
        // Every batch has the rows of those who are erased too; they stay out.
        let of_a_batch = (0..ROWS).filter(|n| !erased.contains(&(n % 997))).count() as i64;
        rows += of_a_batch;
        assert_eq!(number(&w, "SELECT count(*) AS n FROM e"), rows, "before kill {kill}");
        kill_after(&compact, wait);
        assert_eq!(number(&w, "SELECT count(*) AS n FROM e"), rows, "after compaction {kill}");
        assert_eq!(
            number(&w, "SELECT count(DISTINCT n) AS n FROM e"),
            rows,
            "after compaction {kill}"
        );
        let who = format!("c{kill}");
        let theirs = number(&w, &format!("SELECT count(*) AS n FROM e WHERE record_id = '{who}'"));
        let in_a_batch = (0..ROWS).filter(|n| n % 997 == kill as usize).count() as i64;
        assert_eq!(theirs, (i64::from(kill) + 1) * in_a_batch, "{who}");
        let was_done = kill_after(&["erase", "--dir", &w, "--source", "web", &who], wait);
        let left = number(&w, &format!("SELECT count(*) AS n FROM e WHERE record_id = '{who}'"));
        assert!(left == 0 || (left == theirs && !was_done), "{who}: {left} of {theirs}");
        if left == 0 {
            erased.push(kill as usize);
            rows -= theirs;
        } else {
            // Not begun: the same again, to its end.
            run_well(&["erase", "--dir", &w, "--source", "web", &who]);
            erased.push(kill as usize);
            rows -= theirs;
        }
        assert_eq!(number(&w, "SELECT count(*) AS n FROM e"), rows, "after erasure {kill}");
    }
    run_well(&compact);
    assert_eq!(number(&w, "SELECT count(*) AS n FROM e"), rows);
    assert!(run(&["check", "--files", "--dir", &w]).status.success());
    run_well(&["erase", "--dir", &w, "--now", "--source", "web", "c1"]);
    let checked = run(&["erase", "--check", "--dir", &w]);
    // Files of killed writers that no version names stay for a day; nothing else does.
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!told.starts_with("found"), "{told} {}", String::from_utf8_lossy(&checked.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_and_what_was_there_stands() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 16) else { return };
    let w = disk.0.join("w");
    let server = Server::start_in(&w, &[]);
    let client = server.connect().await;
    let few = "INSERT INTO t SELECT x, uuid()::text FROM generate_series(1, 1000) AS s(x)";
    client.batch_execute("CREATE TABLE t (n BIGINT, filler TEXT)").await.unwrap();
    client.batch_execute(few).await.unwrap();
    let count = "SELECT count(*) FROM t";
    for many in [
        "INSERT INTO t SELECT x, uuid()::text FROM generate_series(1, 3000000) AS s(x)",
        "CREATE TABLE other AS SELECT x, uuid()::text AS filler FROM generate_series(1, 3000000) AS s(x)",
    ] {
        let refused = client.batch_execute(many).await.unwrap_err();
        assert_eq!(code(&refused), "53100", "{refused:?}");
        assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1000);
    }
    // What cannot be compressed.
    let noise = |n: u64| {
        let mixed = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ (mixed >> 29)
    };
    let line = |n: u64| format!("{n},{:016x}{:016x}\n", noise(n), noise(n ^ 0xff_ffff));
    let rows: String = (0..1_200_000).map(line).collect();
    let file = dir.path().join("many.csv");
    std::fs::write(&file, format!("n,filler\n{rows}")).unwrap();
    let load = run(&["load", "--dir", &w.display().to_string(), "t", &file.display().to_string()]);
    assert_eq!(load.status.code(), Some(2), "{load:?}");
    assert!(String::from_utf8_lossy(&load.stderr).contains("no space left"), "{load:?}");
    // What was half written is gone, so there is room again.
    client.batch_execute(few).await.unwrap();
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2000);
    let checked = client.query("CHECK TABLE t", &[]).await.unwrap();
    assert!(checked.iter().all(|row| row.get::<_, String>("state") == "ok"));
    drop(server);
}

/// Of refreshes at once each is a run of its own, made of what those before it published.
#[tokio::test(flavor = "multi_thread")]
async fn refreshes_at_once_follow_each_other() {
    let server = Server::start();
    let client = server.connect().await;
    let rows = "SELECT 'shop' AS source, x::text AS record_id, 'phone' AS id_type, '1380013' || (x / 2 + 1000)::text AS id_value FROM generate_series(1, 2000) AS s(x)";
    client
        .batch_execute(&format!("CREATE TABLE ids AS {rows}; CREATE IDENTITY GRAPH g FROM ids"))
        .await
        .unwrap();
    let mut refreshes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = server.connect().await;
        refreshes.spawn(async move {
            for _ in 0..3 {
                client.batch_execute("REFRESH IDENTITY GRAPH g FULL").await.unwrap();
            }
        });
    }
    while let Some(done) = refreshes.join_next().await {
        done.unwrap();
    }
    let runs = "SELECT count(*), count(DISTINCT run), max(run), sum(created) FROM g.runs";
    let runs = client.query_one(runs, &[]).await.unwrap();
    let of = |at: usize| runs.get::<_, i64>(at);
    assert_eq!((of(0), of(1), i64::from(runs.get::<_, i32>(2))), (12, 12, 12));
    let customers = "SELECT count(DISTINCT one_id), max(since_run)::bigint FROM g.map";
    let customers = client.query_one(customers, &[]).await.unwrap();
    assert_eq!((customers.get::<_, i64>(0), customers.get::<_, i64>(1)), (1001, 1));
}

/// The first loads of a warehouse, and the first that set rows aside, come at once: each is in once, and none is refused.
#[tokio::test(flavor = "multi_thread")]
async fn first_loads_at_once_are_all_in_once() {
    const LOADERS: i64 = 4;
    const LOADS: i64 = 3;
    let server = Server::start();
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (w BIGINT, i BIGINT)").await.unwrap();
    let mut loaders = tokio::task::JoinSet::new();
    for loader in 0..LOADERS {
        let client = server.connect().await;
        loaders.spawn(async move {
            for load in 0..LOADS {
                let copy = "COPY t FROM STDIN WITH (max_bad '50%')";
                let sink = client.copy_in(copy).await.unwrap();
                let mut sink = std::pin::pin!(sink);
                let rows = format!("{loader}\t{load}\n{loader}\tx\n");
                sink.send(bytes::Bytes::from(rows)).await.unwrap();
                assert_eq!(sink.finish().await.unwrap(), 1);
            }
        });
    }
    while let Some(done) = loaders.join_next().await {
        done.unwrap();
    }
    let counts = "SELECT (SELECT count(*) FROM t), (SELECT count(DISTINCT (w, i)) FROM t), \
        (SELECT count(*) FROM system.loads), (SELECT count(*) FROM system.quarantine)";
    let counts = counts.replace("DISTINCT (w, i)", "DISTINCT w * 100 + i");
    let row = client.query_one(&counts, &[]).await.unwrap();
    assert_eq!([0, 1, 2, 3].map(|at| row.get::<_, i64>(at)), [LOADERS * LOADS; 4]);
    let keyless = "COPY t (i) FROM STDIN WITH (KEY (w))";
    let sink = client.copy_in::<_, bytes::Bytes>(keyless).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let sent = sink.send(bytes::Bytes::from("1\n")).await;
    let refused = sent.err().or(sink.finish().await.err()).unwrap();
    assert_eq!(code(&refused), "42703", "{refused:?}");
}
