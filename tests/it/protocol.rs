//! The protocol, through tokio-postgres and by hand.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt, pin_mut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::SimpleQueryMessage;

use super::server::{Server, code, signal};

/// A query that would compute for minutes.
const LONG: &str = "SELECT count(*) FROM generate_series(1, 300000) AS a(x), generate_series(1, 300000) AS b(y) WHERE (x * y) % 7 = 3";

async fn one(client: &tokio_postgres::Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let row = messages.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    row.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_typed_by_what_they_meet() {
    let server = Server::start();
    let client = server.connect().await;
    client
        .batch_execute("CREATE TABLE t (a BIGINT, b TEXT, d NUMERIC(10, 2), at TIMESTAMPTZ)")
        .await
        .unwrap();
    let insert = client.prepare("INSERT INTO t (a, b) VALUES ($1, $2)").await.unwrap();
    assert_eq!(client.execute(&insert, &[&7i64, &"it's"]).await.unwrap(), 1);
    let rows =
        client.query("SELECT b FROM t WHERE a = $1 LIMIT $2", &[&7i64, &10i64]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "it's");
    assert_eq!(client.query_one("SELECT $1::int + 1", &[&4i32]).await.unwrap().get::<_, i64>(0), 5);
    let many = client
        .query("SELECT a FROM t WHERE b = ANY($1::text[])", &[&vec!["x", "it's"]])
        .await
        .unwrap();
    assert_eq!(many.len(), 1);
    client
        .batch_execute("CREATE TABLE ids AS SELECT 'shop' AS source, '1' AS record_id, 'phone' AS id_type, '13800138000' AS id_value; CREATE IDENTITY GRAPH g FROM ids; REFRESH IDENTITY GRAPH g")
        .await
        .unwrap();
    let who = "SELECT count(*) FROM g.map WHERE one_id = oneid('g', 'phone', $1)";
    let who = client.prepare(who).await.unwrap();
    for (phone, customers) in [("+86 138-0013-8000", 1i64), ("+86 138-0013-8001", 0)] {
        let found = client.query_one(&who, &[&phone]).await.unwrap();
        assert_eq!(found.get::<_, i64>(0), customers, "{phone}");
    }
    // A table function can be described before its values are known, and is planned again with them.
    let report = client.prepare("SELECT step, name, users FROM funnel_report((SELECT a AS one_id, at AS occurred_at, b AS event FROM t), steps => $1) ORDER BY step").await.unwrap();
    let rows = client.query(&report, &[&vec!["it's", "never", "again"]]).await.unwrap();
    assert_eq!(
        rows.iter().map(|r| r.get::<_, String>(1)).collect::<Vec<_>>(),
        ["it's", "never", "again"]
    );
    // Also where other arguments speak of the steps.
    let of = "(SELECT a AS one_id, at AS occurred_at, b AS event FROM t), steps => $1";
    let steps = vec!["it's", "never", "again"];
    for report in [
        format!(
            "SELECT count(*) FROM funnel_report({of}, optional => ARRAY[2], step_window => ARRAY[INTERVAL '1 day', NULL], exclude => 'x@2-3')"
        ),
        format!(
            "SELECT count(*) FROM funnel_users({of}, step => 3, breakdown => 'event', attribution => 'step:3')"
        ),
        format!("SELECT count(*) FROM time_to_convert({of}, from_step => 2, to_step => 3)"),
        format!("SELECT count(*) FROM funnel_trend({of}, interval => 'week')"),
    ] {
        let prepared = client.prepare(&report).await.unwrap_or_else(|e| panic!("{report}: {e:?}"));
        client.query_one(&prepared, &[&steps]).await.unwrap_or_else(|e| panic!("{report}: {e:?}"));
        let refused = client.query_one(&prepared, &[&vec!["it's"]]).await;
        assert!(refused.is_err() || report.contains("trend"), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_give_rows_in_portions_and_blocks_have_postgresqls_states() {
    let server = Server::start();
    let mut client = server.connect().await;
    let block = client.transaction().await.unwrap();
    let statement =
        block.prepare("SELECT value FROM generate_series(1, 25) ORDER BY value").await.unwrap();
    let portal = block.bind(&statement, &[]).await.unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = block.query_portal(&portal, 10).await.unwrap();
        sizes.push(rows.len());
        if rows.is_empty() || rows.len() < 10 {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    let error = block.simple_query("SELECT nosuch").await.unwrap_err();
    assert_eq!(code(&error), "42703");
    assert_eq!(code(&block.simple_query("SELECT 1").await.unwrap_err()), "25P02");
    block.rollback().await.unwrap();
    assert_eq!(one(&client, "SELECT 1").await, "1");
    client.batch_execute("BEGIN; SAVEPOINT a; SELECT 1; ROLLBACK TO a; RELEASE a; COMMIT; DISCARD ALL; DEALLOCATE ALL").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_timeout_and_a_vanished_client_end_the_computation() {
    let server = Server::start();
    let client = server.connect().await;
    let token = client.cancel_token();
    let started = Instant::now();
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    };
    let (result, ()) = tokio::join!(client.simple_query(LONG), cancelling);
    assert_eq!(code(&result.unwrap_err()), "57014");
    client.batch_execute("SET statement_timeout = '200ms'").await.unwrap();
    assert_eq!(code(&client.simple_query(LONG).await.unwrap_err()), "57014");
    assert!(started.elapsed() < Duration::from_secs(20), "neither waited for the end");
    client.batch_execute("RESET statement_timeout").await.unwrap();

    // While one client computes, another connects and is answered.
    let (busy, connection) =
        tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    let socket = tokio::spawn(connection);
    let query = tokio::spawn(async move { busy.simple_query(LONG).await.map(|_| ()) });
    let other = server.connect().await;
    assert_eq!(one(&other, "SELECT 1").await, "1");
    // The first client's socket closes without a word; its work ends, and the machine is idle again.
    socket.abort();
    let _ = query.await;
    let mut idle = false;
    for _ in 0..100 {
        let before = cpu_ticks(server.pid());
        tokio::time::sleep(Duration::from_millis(100)).await;
        if cpu_ticks(server.pid()) - before <= 3 {
            idle = true;
            break;
        }
    }
    assert!(idle, "the computation of a vanished client goes on");
}

/// Processor time of a process in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_goes_both_ways() {
    let server = Server::start();
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a BIGINT, b TEXT)").await.unwrap();
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"1\tone\n2\t\\N\n3\ta\\tb\\\\")).await.unwrap();
    sink.send(bytes::Bytes::from_static(b"\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 3);
    let sink = client.copy_in("COPY t (b, a) FROM STDIN WITH (FORMAT csv, HEADER)").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"b,a\n\"x,\"\"y\"\"\",4\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 1);
    let out = client.copy_out("COPY (SELECT * FROM t ORDER BY a) TO STDOUT").await.unwrap();
    let text: Vec<u8> = out.map(|chunk| chunk.unwrap().to_vec()).collect::<Vec<_>>().await.concat();
    assert_eq!(String::from_utf8(text).unwrap(), "1\tone\n2\t\\N\n3\ta\\tb\\\\\n4\tx,\"y\"\n");
    let out = client.copy_out("COPY t TO STDOUT WITH (FORMAT csv, HEADER)").await.unwrap();
    let text: Vec<u8> = out.map(|chunk| chunk.unwrap().to_vec()).collect::<Vec<_>>().await.concat();
    assert_eq!(String::from_utf8(text).unwrap().lines().next(), Some("a,b"));
    // Bad rows over the limit: nothing of it is there, and the connection goes on.
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"5\tfive\nsix\t6\n")).await.unwrap();
    assert_eq!(code(&sink.finish().await.unwrap_err()), "22000");
    assert_eq!(one(&client, "SELECT count(*) FROM t").await, "4");
    // The line that psql sends at the end of inline data.
    let sink = client.copy_in("COPY t FROM STDIN WITH (FORMAT csv)").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"7,seven\n\\.\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 1);
    let sink = client.copy_in("COPY t FROM STDIN WITH (FORMAT csv)").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"8,\"eight\n9,nine\n")).await.unwrap();
    assert_eq!(code(&sink.finish().await.unwrap_err()), "22P04");
    // Mistakes are told before any data is asked for.
    for (sql, wanted) in
        [("COPY t (a, c) FROM STDIN", "42703"), ("COPY t (a, a) FROM STDIN", "42701")]
    {
        // The driver ends a refused copy with one Sync too many.
        let other = server.connect().await;
        let refused = other.copy_in::<_, bytes::Bytes>(sql).await.map(|_| ()).unwrap_err();
        assert_eq!(code(&refused), wanted);
    }
    assert_eq!(one(&client, "SELECT count(*) FROM t").await, "5");
    let time = client.query_one("SELECT TIME '10:11:12.5' AS t", &[]).await.unwrap();
    assert_eq!(time.get::<_, chrono::NaiveTime>(0).to_string(), "10:11:12.500");
}

/// Rows that come again through COPY take the places of those from before.
#[tokio::test(flavor = "multi_thread")]
async fn copy_with_a_key_corrects() {
    let server = Server::start();
    let client = server.connect().await;
    let ddl = "CREATE TABLE t (source TEXT, id INT, v TEXT, changed TIMESTAMPTZ)";
    client.batch_execute(ddl).await.unwrap();
    let send = |sql: &'static str, data: &'static str| {
        let client = &client;
        async move {
            let sink = client.copy_in(sql).await.unwrap();
            pin_mut!(sink);
            sink.send(bytes::Bytes::from_static(data.as_bytes())).await.unwrap();
            sink.finish().await
        }
    };
    let csv = "COPY t FROM STDIN WITH (FORMAT csv, KEY (source, id), LATEST changed)";
    send(csv, "a,1,old,2026-01-01\nb,1,only,2026-01-01\na,2,new,2026-01-05\n").await.unwrap();
    let sent = send(csv, "a,1,new,2026-01-02\na,2,late,2026-01-03\nc,1,more,2026-01-01\n").await;
    assert_eq!(sent.unwrap(), 3);
    let rows = "SELECT string_agg(source || id || v, ' ' ORDER BY source, id) FROM t";
    assert_eq!(one(&client, rows).await, "a1new a2new b1only c1more");
    for (sql, expected) in [
        ("COPY t FROM STDIN WITH (KEY 'nosuch')", "42703"),
        ("COPY t FROM STDIN WITH (LATEST changed)", "42601"),
    ] {
        // The driver ends a refused copy with one Sync too many.
        let other = server.connect().await;
        let refused = other.copy_in::<_, bytes::Bytes>(sql).await.map(|_| ()).unwrap_err();
        assert_eq!(code(&refused), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_belong_to_their_connection() {
    let server = Server::start();
    let (one_client, other) = (server.connect().await, server.connect().await);
    one_client
        .batch_execute("SET timezone = 'Asia/Shanghai'; SET as_of = '2011-12-09'")
        .await
        .unwrap();
    assert_eq!(
        one(&one_client, "SELECT TIMESTAMPTZ '2024-01-01 00:00:00Z'").await,
        "2024-01-01 08:00:00+08"
    );
    assert_eq!(
        one(&other, "SELECT TIMESTAMPTZ '2024-01-01 00:00:00Z'").await,
        "2024-01-01 00:00:00+00"
    );
    assert_eq!(one(&other, "SHOW timezone").await, "UTC");
    let options =
        format!("{} options='-c timezone=Europe/Berlin -c statement_timeout=5s'", server.url());
    let third = server.connect_to(&options).await.unwrap();
    third.batch_execute("SET timezone = 'UTC'; RESET ALL").await.unwrap();
    assert_eq!(one(&third, "SHOW timezone").await, "Europe/Berlin");
    assert_eq!(one(&third, "SHOW statement_timeout").await, "5s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_streams_in_both_protocols() {
    const ROWS: usize = 3_000_000;
    const GROWTH_MAX: u64 = 200 << 20;
    let server = Server::start();
    let client = server.connect().await;
    let sql = format!(
        "SELECT value, 'some text of a row' AS t, value * 2 AS twice FROM generate_series(1, {ROWS})"
    );
    assert_eq!(one(&client, "SELECT 1").await, "1");
    let before = server.memory_bytes();
    let mut most = before;
    let no_parameters: [i64; 0] = [];
    let rows = client.query_raw(&sql, no_parameters).await.unwrap();
    pin_mut!(rows);
    let mut count = 0;
    while let Some(row) = rows.next().await {
        row.unwrap();
        count += 1;
        if count % 100_000 == 0 {
            most = most.max(server.memory_bytes());
        }
    }
    assert_eq!(count, ROWS);
    assert!(most - before < GROWTH_MAX, "the server grew by {} MB", (most - before) >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_and_deep_nesting_do_not_end_the_server() {
    let server = Server::start();
    let client = server.connect().await;
    let terms: Vec<String> = (0..2_000).map(|i| format!("x = {i}")).collect();
    let sql =
        format!("SELECT count(*) FROM (VALUES (1), (2)) AS v(x) WHERE {}", terms.join(" OR "));
    assert_eq!(one(&client, &sql).await, "2");
    let sum = vec!["1"; 1_000].join(" + ");
    assert_eq!(one(&client, &format!("SELECT {sum}")).await, "1000");
    // Nothing is nested in these, and yet they are deep.
    for (member, between, times) in
        [("SELECT 1", " UNION ALL ", 3_000), ("1", " + ", 20_000), ("true", " AND ", 20_000)]
    {
        let chain = vec![member; times].join(between);
        let sql = if member.starts_with("SELECT") { chain } else { format!("SELECT {chain}") };
        assert_eq!(code(&client.simple_query(&sql).await.unwrap_err()), "54001", "{between}");
    }
    let arms = vec!["SELECT 1 AS x"; 400].join(" UNION ALL ");
    assert_eq!(one(&client, &format!("SELECT count(*) FROM ({arms}) AS u")).await, "400");
    let whens: String = (0..3_000).map(|i| format!(" WHEN x = {i} THEN {i} + 1")).collect();
    let case = format!("SELECT sum(CASE{whens} ELSE 0 END) FROM (VALUES (1), (2)) AS v(x)");
    assert_eq!(one(&client, &case).await, "5");
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(code(&client.simple_query(&deep).await.unwrap_err()), "54001");
    let calls = format!("SELECT {}1{}", "abs(".repeat(60), ")".repeat(60));
    assert_eq!(one(&client, &calls).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_socket_harms_nobody() {
    let server = Server::start();
    let address = ("127.0.0.1", server.port);
    for bytes in [
        &b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x00\x00\x09\x00\x03\x00\x00x",
    ] {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(Duration::from_millis(300), socket.read_to_end(&mut answer)).await;
    }
    assert_eq!(one(&server.connect().await, "SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_running_statement_end() {
    let mut server = Server::start();
    let client = server.connect().await;
    let idle = server.connect().await;
    let running = tokio::spawn(async move {
        one(&client, "SELECT count(*) FROM generate_series(1, 20000) AS a(x), generate_series(1, 20000) AS b(y) WHERE (x * y) % 7 = 3").await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    signal(server.pid(), "TERM");
    assert!(running.await.unwrap().parse::<u64>().unwrap() > 0);
    assert!(idle.simple_query("SELECT 1").await.is_err());
    assert!(server.wait().is_some_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_give_their_rows_piece_by_piece() {
    let server = Server::start();
    let client = server.connect().await;
    let numbers = |rows: Vec<tokio_postgres::Row>| -> Vec<i64> {
        rows.iter().map(|row| row.get(0)).collect()
    };
    client
        .batch_execute(
            "BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT x FROM (VALUES (1), (2), (3)) AS v(x)",
        )
        .await
        .unwrap();
    assert_eq!(numbers(client.query("FETCH FORWARD 2 FROM c", &[]).await.unwrap()), [1, 2]);
    assert_eq!(numbers(client.query("FETCH ALL FROM c", &[]).await.unwrap()), [3]);
    assert!(client.query("FETCH c", &[]).await.unwrap().is_empty());
    client.batch_execute("COMMIT").await.unwrap();
    let gone = client.query("FETCH c", &[]).await.unwrap_err();
    assert_eq!(code(&gone), "34000");
    client.batch_execute("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT 7; COMMIT").await.unwrap();
    let held = client.simple_query("FETCH h").await.unwrap();
    assert!(
        held.iter().any(|m| matches!(m, SimpleQueryMessage::Row(row) if row.get(0) == Some("7")))
    );
    let back = client.simple_query("FETCH PRIOR FROM h").await.unwrap_err();
    assert_eq!(code(&back), "55000");
}

/// One answer of the port for operators.
async fn http(port: u16, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_health_and_counters() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, format!("[http]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::start_in(&dir.path().join("w"), &flags);
    assert!(http(port, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(http(port, "/secret").await.starts_with("HTTP/1.1 404"));
    let client = server.connect().await;
    client.simple_query("SELECT 1").await.unwrap();
    client.simple_query("SELECT nosuch").await.unwrap_err();
    let metrics = http(port, "/metrics").await;
    for line in [
        "clientele_connections 1",
        "clientele_statements_total 2",
        "clientele_statements_failed_total 1",
        "clientele_rows_sent_total 1",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} in {metrics}");
    }
    std::fs::remove_dir_all(dir.path().join("w/_clientele")).unwrap();
    assert!(http(port, "/healthz").await.starts_with("HTTP/1.1 503"));
}

/// A full house answers in words, at once or after the queue's time, never with silence.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_statements_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("clientele.toml");
    let limits = "[server]\nstatements_max = 1\nqueue_max = 1\nqueue_timeout_s = 1\n";
    std::fs::write(&config, limits).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let server = Server::start_in(&dir.path().join("w"), &flags);
    let busy = server.connect().await;
    let running = tokio::spawn(async move { busy.simple_query(LONG).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (one, two) = (server.connect().await, server.connect().await);
    let (first, second) = tokio::join!(one.simple_query("SELECT 1"), two.simple_query("SELECT 1"));
    for refused in [first, second] {
        let refused = refused.unwrap_err();
        assert_eq!(code(&refused), "53300");
        let message = refused.as_db_error().unwrap();
        assert!(message.message().starts_with("too many statements"), "{message:?}");
        assert!(message.hint().is_some());
    }
    running.abort();
}
