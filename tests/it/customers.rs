//! Tables that are kept by the customers of a graph: their answers are those of a join with the map, whatever has happened to
//! table and graph since the rows were put in order.

use super::server::{Server, code};

async fn text(client: &tokio_postgres::Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

async fn plan(client: &tokio_postgres::Client, sql: &str) -> String {
    let rows = client.query(&format!("EXPLAIN {sql}"), &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(1)).collect::<Vec<_>>().join("\n")
}

async fn run(client: &tokio_postgres::Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

const JOIN: &str = "JOIN customer.map AS m ON m.source = e.source AND e.record_id = m.record_id";

/// Questions about customers; `{t}` is the table.
fn questions() -> Vec<String> {
    [
        "SELECT count(*)::text || ' ' || sum(n * k)::text FROM (SELECT m.one_id, count(*) AS n, sum(e.amount) AS k FROM {t} AS e {join} GROUP BY m.one_id) AS g",
        "SELECT string_agg(c, ' ' ORDER BY c) FROM (SELECT coalesce(m.one_id % 100000, -1)::text || ':' || count(*)::text || ':' || count(m.record_id)::text || ':' || coalesce(min(m.source), '-') AS c FROM {t} AS e LEFT {join} WHERE e.amount % 3 = 0 GROUP BY m.one_id) AS g",
        "SELECT sum(r * amount)::text FROM (SELECT e.amount, row_number() OVER (PARTITION BY m.one_id ORDER BY e.occurred_at, e.amount) AS r FROM {t} AS e {join}) AS w",
        "SELECT string_agg(step::text || ':' || users::text || ':' || coalesce(seconds_avg::text, '-'), ' ' ORDER BY step) FROM funnel_report({t}, steps => ARRAY['view', 'cart', 'pay'], window => INTERVAL '2 hours', identity => 'customer')",
        "SELECT string_agg(e.event || e.amount::text, ',' ORDER BY e.occurred_at, e.amount) FROM {t} AS e {join} WHERE m.one_id = (SELECT max(one_id) FROM customer.map)",
        "SELECT sum(n)::text FROM (SELECT count(*) * (m.one_id % 1000) AS n FROM {t} AS e {join} AND m.one_id % 2 = 0 AND e.amount > 20 GROUP BY m.one_id) AS g",
        "SELECT count(*)::text || ' ' || count(m.one_id)::text FROM {t} AS e LEFT {join} AND m.one_id % 2 = 0",
        "SELECT count(*)::text || ' ' || count(e.amount)::text FROM {t} AS e RIGHT {join}",
        "SELECT count(*)::text || ' ' || sum(k.one_id % 1000)::text FROM customer.map AS k JOIN {t} AS e ON k.record_id = e.record_id AND k.source = e.source",
        "SELECT count(*)::text || ' ' || max(since_run)::text FROM {t} AS e {join}",
        "SELECT string_agg(p, ' ' ORDER BY p) FROM (SELECT (m.one_id % 1000)::text || string_agg(e.event, ',' ORDER BY e.occurred_at, e.amount) AS p FROM {t} AS e {join} WHERE e.amount < 900 GROUP BY m.one_id) AS g",
        "SELECT count(*)::text || ' ' || sum(amount)::text FROM {t}",
        "SELECT sum(n * k)::text FROM (SELECT count(*) AS n, sum(amount) AS k FROM {t} WHERE source = 'app' GROUP BY source, record_id) AS g",
        "SELECT count(*)::text FROM (SELECT record_id AS source, source AS record_id, amount FROM {t}) AS e {join}",
    ]
    .iter()
    .map(|question| question.replace("{join}", JOIN))
    .collect()
}

async fn same_answers(client: &tokio_postgres::Client, when: &str) {
    for question in questions() {
        let kept = text(client, &question.replace("{t}", "kept")).await;
        let right = text(client, &question.replace("{t}", "plain")).await;
        assert_eq!(kept, right, "{when}: {question}");
    }
}

/// Two graphs of the same rows and rules, of which one has read all rows anew.
async fn same_graphs(client: &tokio_postgres::Client) {
    let tables = [
        ("map", "source, record_id, one_id"),
        ("rejected", "source, record_id, id_type, reason"),
        ("hubs", "id_type, value, records"),
        ("review", "id, kind, id_type, value, why, records"),
        ("alias", "old_id, one_id"),
        ("owners", "hash, one_id"),
        ("types", "name, joins"),
    ];
    for (table, columns) in tables {
        for (a, b) in [("customer", "twin"), ("twin", "customer")] {
            let rows = |graph: &str| format!("SELECT {columns} FROM {graph}.{table}");
            let more =
                format!("SELECT count(*)::text FROM ({} EXCEPT ALL {}) AS d", rows(a), rows(b));
            assert_eq!(text(client, &more).await, "0", "{a}.{table} has more than {b}'s");
        }
    }
}

/// Acts of records r0 to r`records`, numbered from `from` to `to`.
fn acts(from: u64, to: u64, records: u64) -> String {
    format!(
        "SELECT CASE WHEN n % 3 = 0 THEN 'app' ELSE 'web' END AS source, CASE WHEN n % 97 = 0 THEN NULL ELSE 'r' || (n * 7919 % {records}) END AS record_id, \
         TIMESTAMPTZ '2024-01-01 00:00:00Z' + (n * 31 % 5000) * INTERVAL '1 minute' AS occurred_at, \
         CASE n / 7 % 4 WHEN 0 THEN 'view' WHEN 1 THEN 'cart' ELSE 'pay' END AS event, n AS amount FROM generate_series({from}, {to}) AS s(n)"
    )
}

/// Records r`from` to r`to` of both sources, with phones of which some are the same.
fn records(from: u64, to: u64, phones: u64) -> String {
    format!(
        "INSERT INTO ids SELECT CASE WHEN n % 2 = 0 THEN 'app' ELSE 'web' END, 'r' || (n / 2), '1380013' || lpad((n * 31 % {phones})::text, 4, '0'), CASE n % 9 WHEN 0 THEN 'n/a' WHEN 1 THEN 'shop@qq.com' WHEN 2 THEN NULL ELSE 'user' || (n * 7 % 211) || '@qq.com' END FROM generate_series({}, {}) AS s(n)",
        2 * from,
        2 * to + 1
    )
}

const PER_CUSTOMER: &str = "SELECT m.one_id, count(*), window_funnel(INTERVAL '2 hours', 'default', e.occurred_at, e.event = 'view', e.event = 'pay') FROM kept AS e JOIN customer.map AS m ON m.source = e.source AND e.record_id = m.record_id WHERE e.amount > 10 GROUP BY m.one_id";

async fn prepare(client: &tokio_postgres::Client) {
    run(client, "CREATE TABLE ids (source TEXT, record_id TEXT, phone TEXT, email TEXT)").await;
    run(client, &records(0, 300, 400)).await;
    for graph in ["customer", "twin"] {
        run(client, &format!("CREATE IDENTITY GRAPH {graph} FROM ids (source, record_id) IDS (phone, email) WITH (phone (priority 1, max_records 6), email (priority 2, max_per_cluster 2), max_cluster_records 12)")).await;
        run(client, &format!("REFRESH IDENTITY GRAPH {graph}")).await;
    }
    run(client, &format!("CREATE TABLE plain AS {}", acts(1, 8000, 330))).await;
    let kept = "CREATE TABLE kept CLUSTER BY (source, record_id, occurred_at) BUCKETS 3 AS";
    run(client, &format!("{kept} {}", acts(1, 8000, 330))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_customer_answer_as_a_join_does_whatever_happens() {
    let server = Server::start();
    let client = server.connect().await;
    prepare(&client).await;
    run(&client, "ALTER TABLE kept SET IDENTITY customer").await;
    same_answers(&client, "before the first compaction").await;
    run(&client, "COMPACT TABLE kept").await;
    same_answers(&client, "compacted").await;
    let then = text(&client, "SELECT max(version)::text FROM system.versions").await;
    let (mut dice, mut acted, mut known) = (Dice(7), 8000, 300);
    for step in 0..60 {
        let did = match dice.below(10) {
            0 => {
                let more = 1 + dice.below(700);
                for table in ["plain", "kept"] {
                    let rows = acts(acted + 1, acted + more, 330 + 2 * step);
                    run(&client, &format!("INSERT INTO {table} {rows}")).await;
                }
                acted += more;
                "acts"
            }
            1 => {
                let more = 1 + dice.below(20);
                run(&client, &records(known + 1, known + more, 300 + dice.below(300))).await;
                known += more;
                "records"
            }
            2 => {
                let gone = dice.below(known);
                run(&client, &format!("DELETE FROM ids WHERE record_id = 'r{gone}'")).await;
                "a record less"
            }
            3 => {
                let (a, b) = (dice.below(known), dice.below(known));
                for graph in ["customer", "twin"] {
                    run(&client, &format!("INSERT INTO {graph}.overrides (op, a, b) VALUES ('must_link', 'app/r{a}', 'web/r{b}')")).await;
                }
                "a link by hand"
            }
            4 => {
                let phone = dice.below(400);
                let (a, b) = (dice.below(known), dice.below(known));
                run(&client, &format!("DELETE FROM ids WHERE record_id IN ('r{a}', 'r{b}')")).await;
                run(&client, &format!("INSERT INTO ids VALUES ('app', 'r{a}', '1380013{phone:04}', 'a{b}@qq.com'), ('web', 'r{b}', '1380013{phone:04}', '000000')")).await;
                "other phones"
            }
            5 | 6 => {
                // What is kept of files that were read gives what reading all of them anew gives.
                run(&client, "REFRESH IDENTITY GRAPH customer").await;
                run(&client, "REFRESH IDENTITY GRAPH twin FULL").await;
                same_graphs(&client).await;
                "refreshed"
            }
            7 => {
                run(&client, "COMPACT TABLE kept").await;
                "compacted"
            }
            8 => {
                run(&client, "COMPACT TABLE ids").await;
                "files of identifiers put together"
            }
            _ => {
                let most = 3 + dice.below(5);
                for graph in ["customer", "twin"] {
                    run(&client, &format!("ALTER IDENTITY GRAPH {graph} SET (phone (priority 1, max_records {most}))")).await;
                }
                "another rule"
            }
        };
        same_answers(&client, &format!("step {step}, {did}")).await;
    }
    // A customer that is erased is nowhere, in files or in answers.
    run(&client, "ERASE RECORD ('app', 'r21'), ('web', 'r22')").await;
    same_answers(&client, "erased").await;
    run(&client, "REFRESH IDENTITY GRAPH customer").await;
    run(&client, "REFRESH IDENTITY GRAPH twin FULL").await;
    same_graphs(&client).await;
    run(&client, "COMPACT TABLE kept").await;
    same_answers(&client, "erased and compacted").await;
    let past = format!("SELECT count(*)::text FROM kept VERSION AS OF {then}");
    let first = "SELECT count(*)::text FROM plain WHERE amount <= 8000";
    assert_eq!(text(&client, &past).await, text(&client, first).await);
    run(&client, "ALTER TABLE kept SET IDENTITY NONE").await;
    same_answers(&client, "let go").await;
    run(&client, "COMPACT TABLE kept").await;
    same_answers(&client, "let go and compacted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_customers_need_no_join_no_shuffle_and_no_sort() {
    let server = Server::start();
    let client = server.connect().await;
    prepare(&client).await;
    run(&client, "CREATE VIEW facts AS SELECT m.one_id, e.* FROM kept AS e LEFT JOIN customer.map AS m ON m.source = e.source AND m.record_id = e.record_id").await;
    run(&client, "ALTER TABLE kept SET IDENTITY customer").await;
    run(&client, "COMPACT TABLE kept").await;
    let funnel = "SELECT * FROM funnel_report(kept, steps => ARRAY['view', 'pay'], window => INTERVAL '2 hours', identity => 'customer')";
    let by_view = "SELECT one_id, count(*) FROM facts WHERE one_id IS NOT NULL GROUP BY one_id";
    let costly = ["RepartitionExec", "SortExec", "HashJoinExec", "SortMergeJoinExec"];
    for sql in [PER_CUSTOMER, funnel, by_view] {
        let plan = plan(&client, sql).await;
        assert!(!costly.iter().any(|node| plan.contains(node)), "{sql}\n{plan}");
    }
    // One customer is looked for in one bucket.
    let one = text(&client, "SELECT max(one_id)::text FROM customer.map").await;
    let of_one = plan(&client, &format!("SELECT amount FROM facts WHERE one_id = {one}")).await;
    assert_eq!(of_one.matches(".parquet").count(), 1, "{of_one}");
    // Fresh rows and customers that have changed are looked up beside the others, which stay as they are.
    run(&client, &format!("INSERT INTO kept {}", acts(8001, 8100, 330))).await;
    run(
        &client,
        "INSERT INTO customer.overrides (op, a, b) VALUES ('must_link', 'app/r1', 'web/r7')",
    )
    .await;
    run(&client, "REFRESH IDENTITY GRAPH customer").await;
    let plan_now = plan(&client, PER_CUSTOMER).await;
    assert!(plan_now.contains("ClusterMergeExec"), "{plan_now}");
    let above = plan_now.split("ClusterMergeExec").next().unwrap_or_default();
    assert!(!costly.iter().any(|node| above.contains(node)), "{plan_now}");
    assert!(plan_now.contains("InBucketsExec"), "{plan_now}");
    run(&client, "COMPACT TABLE kept").await;
    let plan_now = plan(&client, PER_CUSTOMER).await;
    assert!(!costly.iter().any(|node| plan_now.contains(node)), "{plan_now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_by_customers_is_refused_in_words() {
    let server = Server::start();
    let client = server.connect().await;
    prepare(&client).await;
    run(
        &client,
        "CREATE TABLE bare (a TEXT); CREATE TABLE numbered (source TEXT, record_id BIGINT)",
    )
    .await;
    let refused = [
        ("ALTER TABLE kept SET IDENTITY nosuch", "42704"),
        ("ALTER TABLE nosuch SET IDENTITY customer", "42P01"),
        ("ALTER TABLE bare SET IDENTITY customer", "42703"),
        ("ALTER TABLE numbered SET IDENTITY customer", "42804"),
        ("ALTER TABLE customer.map SET IDENTITY customer", "42501"),
        ("ALTER TABLE kept SET IDENTITY", "42601"),
        ("ALTER TABLE kept SET IDENTITY customer twice", "42601"),
    ];
    for (sql, sqlstate) in refused {
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(code(&error), sqlstate, "{sql}: {error:?}");
    }
    run(&client, "ALTER TABLE kept SET IDENTITY \"customer\"").await;
    let error = client.batch_execute("DROP IDENTITY GRAPH customer").await.unwrap_err();
    assert_eq!(code(&error), "2BP01", "{error:?}");
    run(&client, "ALTER TABLE kept SET IDENTITY NONE; DROP IDENTITY GRAPH customer").await;
    // A graph of which no refresh is known yet has nobody to keep rows by.
    run(&client, "CREATE IDENTITY GRAPH customer FROM ids (source, record_id) IDS (phone)").await;
    run(&client, "ALTER TABLE kept SET IDENTITY customer").await;
    let error = client.batch_execute("COMPACT TABLE kept").await.unwrap_err();
    assert_eq!(code(&error), "55000", "{error:?}");
    run(&client, "REFRESH IDENTITY GRAPH customer; COMPACT TABLE kept").await;
    same_answers(&client, "another graph of the same name").await;
}

/// Days on which rows come and nothing else happens, with everything that a new row can do to old records: join them, make a hub of
/// what joined them, part a number between owners, break a limit, add what they were not known by.
#[tokio::test(flavor = "multi_thread")]
async fn days_of_new_rows_give_what_reading_all_of_them_gives() {
    days(
        "WITH (member (priority 1, unique), phone (priority 2, max_records 6, reuse_gap_days 40), email (priority 3, max_records 4), max_cluster_records 30)",
        "INSERT INTO {graph}.overrides (op, a, b) VALUES ('must_link', 'app/r3', 'web/r4'), ('cannot_link', 'app/r6', 'web/r7'), ('must_link', 'app/r6', 'web/r9999'), ('must_link', 'app/r600', 'web/r601')",
        Some("max_cluster_records 20"),
    )
    .await;
}

/// As above, of a graph in which nothing can break a limit.
#[tokio::test(flavor = "multi_thread")]
async fn days_of_a_graph_without_limits_give_what_reading_all_of_them_gives() {
    days(
        "WITH (member, phone (max_records 6), email (priority 3, max_records 4))",
        "INSERT INTO {graph}.overrides (op, a, b) VALUES ('must_link', 'app/r3', 'web/r4'), ('must_link', 'app/r600', 'web/r601')",
        None,
    )
    .await;
}

async fn days(rules: &str, overrides: &str, limit: Option<&str>) {
    let server = Server::start();
    let client = server.connect().await;
    run(&client, "CREATE TABLE ids (source TEXT, record_id TEXT, id_type TEXT, id_value TEXT, seen_at TIMESTAMPTZ)").await;
    // A third of the values is bad, some are of a type without a rule, some records have nothing at all.
    let rows = |from: u64, count: u64, records: u64| {
        format!(
            "INSERT INTO ids SELECT CASE WHEN r % 3 = 0 THEN 'app' ELSE 'web' END, 'r' || r, \
               CASE n % 7 WHEN 0 THEN 'email' WHEN 1 THEN 'member' WHEN 2 THEN 'fax' WHEN 3 THEN NULL ELSE 'phone' END, \
               CASE WHEN n % 11 = 0 THEN 'n/a' WHEN n % 13 = 0 THEN '12' WHEN n % 7 = 0 THEN 'u' || (n * 31 % {records} / 2) || '@qq.com' \
                    WHEN n % 7 = 1 THEN 'm' || (n * 17 % {records} / 2) ELSE '1380013' || lpad((n * 7919 % {records})::text, 4, '0') END, \
               CASE WHEN n % 19 <> 0 THEN TIMESTAMPTZ '2024-01-01' + (n * 37 % 4000) * INTERVAL '1 hour' END \
             FROM (SELECT n, n * 101 % {records} AS r FROM generate_series({from}, {}) AS s(n)) AS t",
            from + count - 1
        )
    };
    run(&client, &rows(1, 900, 500)).await;
    for graph in ["customer", "twin"] {
        run(&client, &format!("CREATE IDENTITY GRAPH {graph} FROM ids (source, record_id, id_type, id_value, seen_at) {rules}")).await;
        run(&client, &overrides.replace("{graph}", graph)).await;
        run(&client, &format!("REFRESH IDENTITY GRAPH {graph}")).await;
    }
    let whose = |graph: &str| {
        format!(
            "SELECT string_agg(coalesce(id_type, '') || ':' || id_value || '=' || coalesce(one_id::text, '-'), ' ' ORDER BY id_type, id_value) \
             FROM (SELECT id_type, id_value, oneid('{graph}', id_type, id_value) AS one_id FROM (SELECT DISTINCT id_type, id_value FROM ids) AS i) AS o"
        )
    };
    let (mut dice, mut count, mut records) = (Dice(11), 900, 500);
    for day in 0..12 {
        let more = 1 + dice.below(160);
        records += dice.below(40);
        run(&client, &rows(count + 1, more, records)).await;
        count += more;
        match day {
            7 => {
                for (graph, rule) in ["customer", "twin"].into_iter().zip([limit; 2]) {
                    let Some(rule) = rule else { continue };
                    run(&client, &format!("ALTER IDENTITY GRAPH {graph} SET ({rule})")).await;
                }
            }
            // More hubs, and fewer.
            8 | 10 => {
                let rule =
                    format!("email (priority 3, max_records {})", if day == 8 { 2 } else { 9 });
                for graph in ["customer", "twin"] {
                    run(&client, &format!("ALTER IDENTITY GRAPH {graph} SET ({rule})")).await;
                }
            }
            // The map's files become one, in which records are not in order.
            3 | 5 | 11 => run(&client, "COMPACT TABLE customer.map").await,
            9 => {
                for graph in ["customer", "twin"] {
                    run(&client, &format!("INSERT INTO {graph}.overrides (op, a, b) VALUES ('must_link', 'app/r9', 'web/r10')")).await;
                }
            }
            _ => {}
        }
        run(&client, "REFRESH IDENTITY GRAPH customer").await;
        run(&client, "REFRESH IDENTITY GRAPH twin FULL").await;
        same_graphs(&client).await;
        assert_eq!(text(&client, &whose("customer")).await, text(&client, &whose("twin")).await);
        let phone = "'phone', '1380013' || lpad('7', 4, '0')";
        for graph in ["customer", "twin"] {
            let asked = format!(
                "SELECT coalesce(oneid('{graph}', 'phone', '13800130007')::text, '-') || ' ' || coalesce(oneid('{graph}', {phone})::text, '-')"
            );
            let told = text(&client, &asked).await;
            let (constant, computed) = told.split_once(' ').unwrap();
            assert_eq!(constant, computed);
        }
    }
    // Numbers are not given twice.
    let twice = "SELECT (count(*) - count(DISTINCT record))::text FROM customer.map";
    assert_eq!(text(&client, twice).await, "0");
    let merged = "SELECT count(*)::text FROM customer.history WHERE event = 'merged'";
    assert_ne!(text(&client, merged).await, "0");
}

/// A refresh reads the files that it has not read yet: the others may be gone, for all it cares.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_reads_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, "[storage]\ncompact_every_s = 0\n").unwrap();
    let warehouse = dir.path().join("w");
    let server = Server::start_in(&warehouse, &["--config", config.to_str().unwrap()]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE ids (source TEXT, record_id TEXT, phone TEXT)").await;
    run(&client, "INSERT INTO ids SELECT 'web', 'r' || n, '1380013' || lpad((n % 70)::text, 4, '0') FROM generate_series(0, 99) AS s(n)").await;
    run(&client, "CREATE IDENTITY GRAPH customer FROM ids (source, record_id) IDS (phone)").await;
    run(&client, "REFRESH IDENTITY GRAPH customer").await;
    for file in std::fs::read_dir(warehouse.join("public/ids")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "parquet") {
            let size = std::fs::metadata(&file).unwrap().len();
            std::fs::write(&file, vec![0; size as usize]).unwrap();
        }
    }
    run(&client, "INSERT INTO ids VALUES ('app', 'x', '13800130001'), ('app', 'y', '13900139001')")
        .await;
    run(&client, "REFRESH IDENTITY GRAPH customer").await;
    let customers =
        "SELECT count(*)::text || ' ' || count(DISTINCT one_id)::text FROM customer.map";
    assert_eq!(text(&client, customers).await, "102 71");
    let why = "SELECT count(*)::text FROM oneid_why('customer', 'app/x', 'web/r71')";
    assert_ne!(text(&client, why).await, "0");
    let error = client.batch_execute("REFRESH IDENTITY GRAPH customer FULL").await.unwrap_err();
    assert_eq!(code(&error), "XX001", "{error:?}");
    assert_eq!(text(&client, customers).await, "102 71");
}

/// With memory for a part of the identifiers the others go to disk, and the answer is the same.
#[test]
fn what_does_not_fit_into_memory_goes_to_disk() {
    use super::server::{run, run_well};
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let config = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let large = config("large.toml", "[memory]\nlimit_mb = 2000\n");
    let small = config("small.toml", "[memory]\nlimit_mb = 55\n");
    let no_disk = config("no_disk.toml", "[memory]\nlimit_mb = 55\nspill_limit_mb = 1\n");
    run_well(&["user", "--dir", &w, "list"]);
    let sql = |config: &str, text: &str| {
        run_well(&["sql", "--dir", &w, "--config", config, "--format", "csv", text])
    };
    sql(
        &large,
        "CREATE TABLE ids AS SELECT 'web' AS source, n::text AS record_id, \
        'u' || (n * 7919 % 399000) || '@qq.com' AS email, 'd' || (n * 31 % 399500) AS device, \
        'm' || (n * 17 % 399900) AS member, 'o' || n AS open_id FROM generate_series(1, 400000) AS s(n)",
    );
    sql(
        &large,
        "CREATE IDENTITY GRAPH g FROM ids (source, record_id) IDS (email, device, member, open_id)",
    );
    let all = "SELECT count(*) AS n, count(DISTINCT one_id) AS customers, sum(one_id % 1000003) AS ids FROM g.map; \
        SELECT count(o) AS n, sum(o % 1000003) AS whose FROM (SELECT oneid('g', 'email', email) AS o FROM ids) AS i; \
        SELECT count(*) AS n, sum(hash % 1000003) AS hashes FROM g.identifiers";
    sql(&large, "REFRESH IDENTITY GRAPH g FULL");
    let expected = sql(&large, all);
    sql(&small, "REFRESH IDENTITY GRAPH g FULL");
    assert_eq!(sql(&large, all), expected);
    let refused = run(&["sql", "--dir", &w, "--config", &no_disk, "REFRESH IDENTITY GRAPH g FULL"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("identifiers do not fit into memory"), "{told}");
    assert_eq!(sql(&large, all), expected);
}
