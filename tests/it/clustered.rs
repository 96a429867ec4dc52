//! Clustered tables: the plans they give, and that their answers are those of any other table.

use super::server::{Server, code, run, run_well};

/// Acts of 500 customers of two sources, some of them without an id, at times that repeat.
const ROWS: &str = "WITH d(x) AS (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) \
    SELECT CASE WHEN n % 3 = 0 THEN 'app' ELSE 'web' END AS source, \
        CASE WHEN n % 97 = 0 THEN NULL ELSE 'c' || (n * 7919 % 500) END AS record_id, \
        TIMESTAMPTZ '2024-01-01 00:00:00Z' + (n * 31 % 1000) * INTERVAL '1 minute' AS occurred_at, \
        CASE n / 7 % 4 WHEN 0 THEN 'view' WHEN 1 THEN 'cart' ELSE 'pay' END AS event, n AS amount \
    FROM (SELECT a.x + 10 * b.x + 100 * c.x + 1000 * e.x AS n FROM d AS a, d AS b, d AS c, d AS e) AS numbers";

async fn plan(client: &tokio_postgres::Client, sql: &str) -> String {
    let rows = client.query(&format!("EXPLAIN {sql}"), &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(1)).collect::<Vec<_>>().join("\n")
}

async fn text(client: &tokio_postgres::Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_else(|| panic!("{sql} gives nothing"))
}

/// Questions whose answers must not depend on how the rows are kept; `{t}` is the table.
const QUESTIONS: [&str; 18] = [
    "SELECT string_agg(path, ' ' ORDER BY path) FROM (SELECT record_id || string_agg(event, ',' ORDER BY occurred_at, amount) || array_agg(amount ORDER BY occurred_at, amount)::text AS path FROM {t} WHERE amount < 3000 GROUP BY source, record_id) AS paths",
    "SELECT string_agg(event || amount::text, ',' ORDER BY occurred_at DESC, amount) || count(*)::text FROM {t} WHERE amount % 7 = 0",
    "SELECT count(*)::text || ' ' || sum(amount)::text || ' ' || count(DISTINCT record_id)::text FROM {t}",
    "SELECT sum(n * k)::text FROM (SELECT count(*) AS n, sum(amount) AS k FROM {t} GROUP BY source, record_id) AS g",
    "SELECT sum(n * k)::text FROM (SELECT count(*) AS n, sum(amount) AS k FROM {t} GROUP BY record_id, source) AS g",
    "SELECT sum(n * k)::text FROM (SELECT count(*) AS n, sum(amount) AS k FROM {t} WHERE source = 'app' AND occurred_at >= '2024-01-01 05:00' GROUP BY source, record_id, event) AS g",
    "SELECT count(*)::text || ' ' || sum(amount)::text FROM {t} WHERE source = 'app' AND 'c201' = record_id AND amount > 3",
    "SELECT string_agg(c, ' ' ORDER BY c) FROM (SELECT record_id || count(*)::text AS c FROM {t} WHERE record_id = 'c8' AND (source = 'web' OR source = 'app') GROUP BY source, record_id) AS one",
    "SELECT sum(level)::text FROM (SELECT window_funnel(INTERVAL '2 hours', 'default', occurred_at, event = 'view', event = 'cart', event = 'pay') AS level FROM {t} GROUP BY source, record_id) AS f",
    "SELECT string_agg(users::text || seconds_avg::text, ' ' ORDER BY step) FROM funnel_report({t}, steps => ARRAY['view', 'cart', 'pay'], window => INTERVAL '5 hours', optional => ARRAY[2], exclude => ARRAY['cart@1-3: amount % 3 = 0'], count => 'attempts')",
    "SELECT string_agg(users::text, ' ' ORDER BY bucket, step) FROM funnel_trend({t}, steps => ARRAY['view', 'pay'], window => INTERVAL '5 hours', count => 'sessions', session_gap => INTERVAL '3 hours')",
    "SELECT string_agg(model || channel || conversions::text || value::text || coalesce(removal_effect, 0)::text, ' ' ORDER BY model, channel) FROM attribution_report({t}, conversion => 'pay', channel => 'event', model => 'all', lookback => INTERVAL '1 day')",
    "SELECT string_agg(source || target || users::text || seconds_median::text, ' ' ORDER BY step, source, target) FROM path_edges({t}, session_gap => INTERVAL '2 hours')",
    "SELECT string_agg(cohort::text || retained::text || rate::text, ' ' ORDER BY cohort, period) FROM retention_matrix({t}, start => 'view', back => 'pay', measure => 'sum(amount)', brackets => ARRAY[1, 3])",
    "SELECT sum(r * amount)::text FROM (SELECT amount, rank() OVER (PARTITION BY source, record_id ORDER BY occurred_at) AS r FROM {t}) AS w",
    "SELECT count(*)::text || ' ' || sum(a.amount + b.amount)::text FROM {t} AS a JOIN {t} AS b ON a.source = b.source AND a.record_id = b.record_id AND a.event = 'view' AND b.event = 'pay'",
    "SELECT sum(n * n)::text FROM (SELECT count(*) AS n FROM (SELECT source, record_id FROM {t} UNION ALL SELECT source, record_id FROM plain) AS u GROUP BY source, record_id) AS g",
    "SELECT string_agg(record_id || amount::text, ',' ORDER BY record_id, amount) FROM (SELECT t.record_id, t.amount FROM {t} AS t JOIN (SELECT DISTINCT record_id, source FROM plain WHERE amount < 40) AS p ON p.source = t.source AND p.record_id = t.record_id WHERE t.amount < 2000) AS j",
];

async fn same_answers(client: &tokio_postgres::Client, tables: &[&str], when: &str) {
    for question in QUESTIONS {
        let right = text(client, &question.replace("{t}", "plain")).await;
        for table in tables {
            let sql = question.replace("{t}", table);
            assert_eq!(text(client, &sql).await, right, "{when}: {sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clustered_tables_answer_as_others_do_and_shuffle_nothing() {
    let server = Server::start();
    let client = server.connect().await;
    client.batch_execute(&format!("CREATE TABLE plain AS {ROWS}")).await.unwrap();
    let tables = ["one", "two", "eight"];
    for (table, buckets) in tables.iter().zip([1, 2, 8]) {
        let clustered = format!(
            "CREATE TABLE {table} CLUSTER BY (source, record_id, occurred_at) BUCKETS {buckets} AS {ROWS}"
        );
        client.batch_execute(&clustered).await.unwrap();
    }
    same_answers(&client, &tables, "fresh").await;
    for table in tables {
        client.batch_execute(&format!("COMPACT TABLE {table}")).await.unwrap();
    }
    same_answers(&client, &tables, "compacted").await;
    let grouped = |table: &str| {
        format!(
            "SELECT source, record_id, count(*), window_funnel(INTERVAL '2 hours', 'default', occurred_at, event = 'view', event = 'pay') FROM {table} WHERE amount > 10 GROUP BY source, record_id"
        )
    };
    let windowed = |table: &str| {
        format!(
            "SELECT row_number() OVER (PARTITION BY source, record_id ORDER BY occurred_at) FROM {table}"
        )
    };
    let turned = |table: &str| {
        format!(
            "SELECT count(*), record_id, event, max(source) FROM {table} WHERE amount > 10 GROUP BY event, record_id, source"
        )
    };
    let attempts = |table: &str| {
        format!(
            "SELECT sum(level) FROM funnel_users({table}, steps => ARRAY['view', 'cart', 'pay'], optional => ARRAY[2], exclude => 'nosuch', count => 'sessions')"
        )
    };
    let credited = |table: &str| {
        format!(
            "SELECT * FROM attribution_report({table}, conversion => 'pay', channel => 'event', model => 'all')"
        )
    };
    let gathered = |table: &str| {
        format!(
            "SELECT record_id, string_agg(event, ',' ORDER BY occurred_at), count(*) FROM {table} GROUP BY record_id, source"
        )
    };
    for table in tables {
        for sql in [
            grouped(table),
            windowed(table),
            gathered(table),
            turned(table),
            attempts(table),
            credited(table),
        ] {
            let plan = plan(&client, &sql).await;
            assert!(
                !plan.contains("RepartitionExec") && !plan.contains("SortExec"),
                "{sql}\n{plan}"
            );
        }
    }
    // One customer is looked for in one bucket.
    let one = "SELECT amount FROM two WHERE source = 'app' AND record_id = 'c201'";
    let read = plan(&client, one).await;
    assert_eq!(read.matches(".parquet").count(), 1, "{read}");
    // A few fresh rows do not cost the fast path, and are seen at once.
    for table in ["plain", "one", "two", "eight"] {
        for i in 0..3 {
            let more = format!(
                "INSERT INTO {table} SELECT source, record_id, occurred_at + INTERVAL '30 seconds', event, amount + {i} FROM ({ROWS}) AS more WHERE amount % 50 = {i}"
            );
            client.batch_execute(&more).await.unwrap();
        }
    }
    same_answers(&client, &tables, "with a tail").await;
    for table in tables {
        for sql in [
            grouped(table),
            windowed(table),
            gathered(table),
            turned(table),
            attempts(table),
            credited(table),
        ] {
            let plan = plan(&client, &sql).await;
            assert!(plan.contains("ClusterMergeExec"), "{sql}\n{plan}");
            assert!(
                !plan.contains("RepartitionExec") && !plan.contains("SortExec"),
                "{sql}\n{plan}"
            );
        }
        let limited = client
            .query(&format!("SELECT source, record_id, amount FROM {table} LIMIT 7"), &[])
            .await
            .unwrap();
        assert_eq!(limited.len(), 7);
        let first = format!(
            "SELECT string_agg(record_id || occurred_at::text, ' ') FROM (SELECT record_id, occurred_at FROM {table} WHERE source = 'web' ORDER BY source, record_id, occurred_at LIMIT 20) AS f"
        );
        assert_eq!(
            text(&client, &first).await,
            text(&client, &first.replace(table, "plain")).await
        );
        let one = format!(
            "SELECT count(*)::text FROM {table} WHERE source = 'web' AND record_id = 'c41'"
        );
        assert_eq!(text(&client, &one).await, text(&client, &one.replace(table, "plain")).await);
    }
    for table in tables {
        client.batch_execute(&format!("COMPACT TABLE {table}")).await.unwrap();
        let again = client.simple_query(&format!("COMPACT TABLE {table}")).await;
        assert!(again.is_ok());
    }
    same_answers(&client, &tables, "compacted again").await;
    client.batch_execute("COMPACT TABLE plain").await.unwrap();
    let refused = client.batch_execute("COMPACT TABLE nothing").await.unwrap_err();
    assert_eq!(code(&refused), "42P01");
    let refused = client.batch_execute("CREATE TABLE x (a TEXT) CLUSTER BY (b)").await.unwrap_err();
    assert_eq!(code(&refused), "42703");
}

/// Loads and compactions at once, from processes of their own: every row once.
#[test]
fn loads_beside_compactions_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE t (k TEXT, n BIGINT) CLUSTER BY (k) BUCKETS 2"]);
    const LOADS: usize = 12;
    let file = |i: usize| {
        let rows: String =
            (0..100).map(|r| format!("k{},{}\n", r * (i + 1) % 37, i * 100 + r)).collect();
        let path = dir.path().join(format!("{i}.csv"));
        std::fs::write(&path, format!("k,n\n{rows}")).unwrap();
        path.display().to_string()
    };
    let files: Vec<String> = (0..LOADS).map(file).collect();
    let w = w.as_str();
    std::thread::scope(|scope| {
        for half in files.chunks(LOADS / 2) {
            scope.spawn(move || {
                for file in half {
                    run_well(&["load", "--dir", w, "t", file]);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..8 {
                let compacted = run(&["compact", "--dir", w, "t"]);
                let told = String::from_utf8_lossy(&compacted.stderr).into_owned();
                assert!(compacted.status.success() || told.contains("by others"), "{told}");
            }
        });
    });
    let sums = [
        "sql",
        "--dir",
        w,
        "--format",
        "csv",
        "SELECT count(*) AS n, count(DISTINCT n) AS d, sum(n) AS s FROM t",
    ];
    let all = LOADS * 100;
    assert_eq!(run_well(&sums), format!("n,d,s\n{all},{all},{}\n", all * (all - 1) / 2));
    run_well(&["compact", "--dir", w]);
    assert_eq!(run_well(&sums), format!("n,d,s\n{all},{all},{}\n", all * (all - 1) / 2));
    run_well(&["check", "--dir", w]);
}

/// The newest rows of a large table stay in a file of their own: questions of the last days read no other.
#[tokio::test(flavor = "multi_thread")]
async fn recent_rows_of_a_large_table_stay_apart() {
    const MANY: &str = "SELECT 'shop' || x % 3 AS source, 'c' || x % 5003 AS record_id, \
        TIMESTAMPTZ '2026-01-01' + x % 100 * INTERVAL '1 day' + x % 7919 * INTERVAL '1 second' AS occurred_at, \
        CASE WHEN x % 4 = 0 THEN 'pay' ELSE 'view' END AS event, x AS amount";
    let server = Server::start();
    let client = server.connect().await;
    let rows = |from: u32, to: u32| format!("{MANY} FROM generate_series({from}, {to}) AS g(x)");
    let cluster = "CLUSTER BY (source, record_id, occurred_at) BUCKETS 2";
    client
        .batch_execute(&format!("CREATE TABLE t {cluster} AS {}", rows(1, 1_200_000)))
        .await
        .unwrap();
    client.batch_execute(&format!("CREATE TABLE twin AS {}", rows(1, 1_200_000))).await.unwrap();
    let files = || async { client.query("CHECK TABLE t", &[]).await.unwrap().len() };
    let questions = [
        "SELECT count(*)::text || ' ' || sum(amount)::text FROM {}",
        "SELECT string_agg(event || ' ' || n::text, ',' ORDER BY event) FROM (SELECT event, count(*) AS n FROM {} WHERE occurred_at >= TIMESTAMPTZ '2026-04-05' GROUP BY event) AS e",
        "SELECT sum(level * h)::text FROM (SELECT window_funnel(INTERVAL '3 days', 'default', occurred_at, event = 'view', event = 'pay') AS level, length(record_id) + length(source) AS h FROM {} GROUP BY source, record_id) AS f",
        "SELECT md5(string_agg(record_id || n::text || a::text, ',' ORDER BY source, record_id)) FROM (SELECT source, record_id, count(*) AS n, sum(amount) AS a FROM {} WHERE occurred_at >= TIMESTAMPTZ '2026-03-20' GROUP BY 1, 2) AS g",
    ];
    let same = |when: &'static str| {
        let client = &client;
        async move {
            for question in questions {
                let ours = text(client, &question.replace("{}", "t")).await;
                let twin = text(client, &question.replace("{}", "twin")).await;
                assert_eq!(ours, twin, "{when}: {question}");
            }
        }
    };
    client.batch_execute("COMPACT TABLE t").await.unwrap();
    assert_eq!(files().await, 3, "two buckets and the recent rows");
    same("compacted").await;
    let last_days = "ANALYZE SELECT event, count(*) FROM t WHERE occurred_at >= TIMESTAMPTZ '2026-04-05' GROUP BY event";
    let read = plan(&client, last_days).await;
    assert!(read.contains("row_groups_pruned_statistics=8 total → 2 matched"), "{read}");
    // Many small files are made one, with the recent rows; then there is nothing to do.
    for n in 0..20 {
        let (from, to) = (1_200_001 + n * 1000, 1_201_000 + n * 1000);
        for table in ["t", "twin"] {
            client.batch_execute(&format!("INSERT INTO {table} {}", rows(from, to))).await.unwrap();
        }
    }
    assert_eq!(files().await, 23);
    same("with fresh rows").await;
    client.batch_execute("COMPACT TABLE t").await.unwrap();
    assert_eq!(files().await, 3);
    same("compacted again").await;
    // When they have become many, everything is put in its place anew.
    for table in ["t", "twin"] {
        client
            .batch_execute(&format!("INSERT INTO {table} {}", rows(1_300_001, 1_500_000)))
            .await
            .unwrap();
    }
    client.batch_execute("COMPACT TABLE t").await.unwrap();
    assert_eq!(files().await, 3);
    same("compacted after more").await;
}

/// A server puts fresh rows in their place by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_compacts_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, "[storage]\ncompact_every_s = 1\n").unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::start_in(&dir.path().join("w"), &flags);
    let client = server.connect().await;
    client
        .batch_execute(&format!("CREATE TABLE t CLUSTER BY (record_id) BUCKETS 2 AS {ROWS}"))
        .await
        .unwrap();
    let files = || async { client.query("CHECK TABLE t", &[]).await.unwrap().len() };
    assert_eq!(files().await, 1);
    for _ in 0..100 {
        if files().await == 2 {
            let rows =
                text(&client, "SELECT count(*)::text || ' ' || sum(amount)::text FROM t").await;
            assert_eq!(rows, "10000 49995000");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the table was not compacted");
}

/// Many small loads leave many small files; of a table that is not clustered too they become one.
#[test]
fn small_files_of_any_table_are_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE t (n BIGINT, b TEXT)"]);
    for n in 0..12 {
        run_well(&["sql", "--dir", &w, &format!("INSERT INTO t VALUES ({n}, 'x'), (NULL, NULL)")]);
    }
    let question = "SELECT count(*) || '/' || sum(n) || '/' || count(b) AS a FROM t";
    let ask = || run_well(&["sql", "--dir", &w, "--format", "csv", question]);
    let files =
        || run_well(&["sql", "--dir", &w, "--format", "csv", "CHECK TABLE t"]).lines().count() - 1;
    assert_eq!((ask().as_str(), files()), ("a\n24/66/12\n", 12));
    let done = run(&["compact", "--dir", &w, "t"]);
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("t: 24 rows, 12 files became 1"),
        "{done:?}"
    );
    assert_eq!((ask().as_str(), files()), ("a\n24/66/12\n", 1));
    run_well(&["sql", "--dir", &w, "COMPACT TABLE t; INSERT INTO t VALUES (100, 'y')"]);
    assert_eq!(ask(), "a\n25/166/13\n");
}

/// A bucket of many rows is several files, cut between customers: read in turn, and each written anew by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_several_files_is_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("clientele.toml");
    // Nothing is done behind the test's back.
    std::fs::write(&config, "[storage]\nfile_mb = 1\ncompact_every_s = 0\nkeep_days = 0\n")
        .unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::start_in(&dir.path().join("w"), &flags);
    let client = server.connect().await;
    let rows = "SELECT CASE WHEN n % 3 = 0 THEN 'app' ELSE 'web' END AS source, CASE WHEN n % 1000 = 7 THEN NULL ELSE 'c' || (n * 7919 % 20011) END AS record_id, \
        TIMESTAMPTZ '2024-01-01 00:00Z' + (n * 31 % 50000) * INTERVAL '1 minute' AS occurred_at, \
        CASE n / 7 % 4 WHEN 0 THEN 'view' WHEN 1 THEN 'cart' ELSE 'pay' END AS event, n AS amount, md5(n::text) AS noise FROM generate_series(1, 400000) AS s(n)";
    client.batch_execute(&format!("CREATE TABLE plain AS {rows}")).await.unwrap();
    let create = "CREATE TABLE kept CLUSTER BY (source, record_id, occurred_at) BUCKETS 2 AS";
    client.batch_execute(&format!("{create} {rows}")).await.unwrap();
    client.batch_execute("COMPACT TABLE kept").await.unwrap();
    let files = || async {
        let rows = client.query("CHECK TABLE kept", &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(1)).collect::<std::collections::BTreeSet<_>>()
    };
    let written = files().await;
    assert!(written.len() > 6, "{written:?}");
    let questions = [
        "SELECT count(*)::text || ' ' || sum(n * k)::text FROM (SELECT count(*) AS n, sum(amount) AS k FROM {t} GROUP BY source, record_id) AS g",
        "SELECT sum(r * amount)::text FROM (SELECT amount, row_number() OVER (PARTITION BY source, record_id ORDER BY occurred_at, amount) AS r FROM {t}) AS w",
        "SELECT sum(level)::text FROM (SELECT window_funnel(INTERVAL '2 days', 'default', occurred_at, event = 'view', event = 'cart', event = 'pay') AS level FROM {t} WHERE amount % 5 <> 0 GROUP BY source, record_id) AS f",
        "SELECT count(*)::text || coalesce(sum(amount), 0)::text FROM {t} WHERE source = 'app' AND record_id = 'c201'",
        "SELECT string_agg(record_id || amount::text, ' ') FROM (SELECT record_id, amount FROM {t} WHERE source = 'web' ORDER BY source, record_id, occurred_at, amount LIMIT 30) AS f",
        "SELECT count(DISTINCT noise)::text FROM {t}",
    ];
    let same = async |when: &str| {
        for question in questions {
            let right = text(&client, &question.replace("{t}", "plain")).await;
            assert_eq!(
                text(&client, &question.replace("{t}", "kept")).await,
                right,
                "{when}: {question}"
            );
        }
    };
    same("compacted").await;
    let grouped = "SELECT source, record_id, count(*), string_agg(event, ',' ORDER BY occurred_at) FROM kept GROUP BY source, record_id";
    let read = plan(&client, grouped).await;
    assert!(read.contains("InTurnExec"), "{read}");
    assert!(!read.contains("RepartitionExec") && !read.contains("SortExec"), "{read}");
    // Of a person who is erased the file is written anew that has the rows, and stays where it was.
    client.batch_execute("ERASE RECORD ('app', 'c201')").await.unwrap();
    let erased = files().await;
    assert_eq!(
        (erased.len(), written.intersection(&erased).count()),
        (written.len(), written.len() - 1)
    );
    assert!(plan(&client, grouped).await.contains("InTurnExec"));
    same("erased").await;
    // Fresh rows are merged in, and put among the others.
    for table in ["plain", "kept"] {
        let more = format!(
            "INSERT INTO {table} SELECT source, record_id, occurred_at + INTERVAL '30 seconds', event, amount + 1000000, noise FROM plain WHERE amount % 50 = 3 AND amount < 500000"
        );
        client.batch_execute(&more).await.unwrap();
    }
    let read = plan(&client, grouped).await;
    assert!(read.contains("ClusterMergeExec") && read.contains("InTurnExec"), "{read}");
    same("with a tail").await;
    client.batch_execute("COMPACT TABLE kept").await.unwrap();
    assert!(files().await.intersection(&written).next().is_none());
    same("compacted again").await;
    // Kept by other keys, and by the first ones again: what lies in another order is sorted portion by portion.
    client.batch_execute("CREATE TABLE ids AS SELECT DISTINCT source, record_id, '138' || lpad((length(record_id) * 1000 + substr(record_id, 2)::bigint % 9000)::text, 8, '0') AS phone FROM plain WHERE record_id IS NOT NULL").await.unwrap();
    client
        .batch_execute("CREATE IDENTITY GRAPH customer FROM ids (source, record_id) IDS (phone)")
        .await
        .unwrap();
    client
        .batch_execute("REFRESH IDENTITY GRAPH customer; ALTER TABLE kept SET IDENTITY customer")
        .await
        .unwrap();
    let customers = "SELECT count(*)::text || ' ' || sum(n * k)::text FROM (SELECT count(*) AS n, sum(e.amount) AS k FROM {t} AS e JOIN customer.map AS m ON m.source = e.source AND m.record_id = e.record_id GROUP BY m.one_id) AS g";
    let right = text(&client, &customers.replace("{t}", "plain")).await;
    client.batch_execute("COMPACT TABLE kept").await.unwrap();
    assert_eq!(text(&client, &customers.replace("{t}", "kept")).await, right);
    let read = plan(&client, &customers.replace("{t}", "kept")).await;
    assert!(read.contains("InTurnExec") && !read.contains("RepartitionExec"), "{read}");
    same("by customer").await;
    client.batch_execute("ALTER TABLE kept SET IDENTITY NONE; COMPACT TABLE kept").await.unwrap();
    same("by record again").await;
    let read = plan(&client, grouped).await;
    assert!(!read.contains("RepartitionExec") && !read.contains("SortExec"), "{read}");
}
