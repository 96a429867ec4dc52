//! A warehouse in a bucket, over a server of S3's protocol that fails now and then.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use tokio::net::{TcpListener, TcpStream};

use super::server::{code, program, python_with, signal};

const S3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/s3.py");

/// Of so many requests one fails, half of them after they were carried out.
const FAULTS: &str = "0.05";

const SECRET: &str = "wJalrXUtnFEMI-a-secret-of-the-test";

/// A server that lives as long as its test.
struct Bucket {
    child: Child,
    port: u16,
    python: String,
}

impl Bucket {
    fn start(args: &[&str]) -> Option<Self> {
        let python = python_with("moto.server")?;
        let mut child = Command::new(&python)
            .arg(S3)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        Some(Self { child, port: port.trim().parse().unwrap(), python })
    }

    /// The program, with what it needs to reach the bucket.
    fn program(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.args(args).env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port));
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("AWS_REGION", "us-east-1");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.program(args).output().unwrap()
    }

    fn run_well(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        assert!(!said.contains(SECRET));
        String::from_utf8(output.stdout).unwrap()
    }

    fn line(&self, dir: &str, sql: &str) -> String {
        let text = self.run_well(&["sql", "--dir", dir, "--format", "csv", sql]);
        text.lines().skip(1).collect::<Vec<_>>().join(" ")
    }

    fn copy(&self, from: &str, to: &str) {
        let port = self.port.to_string();
        let copied = Command::new(&self.python).args([S3, "copy", &port, from, to]).status();
        assert!(copied.unwrap().success());
    }

    /// The keys below a prefix.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let port = self.port.to_string();
        let listed = Command::new(&self.python).args([S3, "list", &port, prefix]).output();
        let keys = String::from_utf8(listed.unwrap().stdout).unwrap();
        keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect()
    }

    /// Ends the server; what it counted.
    fn end(mut self) -> serde_json::Value {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.child.wait().unwrap();
        serde_json::from_str(&said).unwrap()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROCESSES: usize = 3;
const FILES_EACH: usize = 4;
const ROWS: usize = 400;

/// Loads beside each other, repeated loads, a compaction, an upsert and an erasure: every row once, whatever failed.
#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_lost_or_doubled_over_a_store_that_fails() {
    let Some(bucket) = Bucket::start(&["serve", FAULTS]) else { return };
    let dir = "s3://shop/warehouse";
    let files = tempfile::tempdir().unwrap();
    let mut loads = Vec::new();
    for process in 0..PROCESSES {
        let mut paths = Vec::new();
        for file in 0..FILES_EACH {
            let mut text = "order_id,source,record_id,ordered_at,amount\n".to_owned();
            for row in 0..ROWS {
                let order = (process * FILES_EACH + file) * ROWS + row;
                let customer = order % 97;
                text += &format!("o{order},web,c{customer},2026-03-01 10:00:00,{order}\n");
            }
            let path = files.path().join(format!("{process}-{file}.csv"));
            std::fs::write(&path, text).unwrap();
            paths.push(path.to_str().unwrap().to_owned());
        }
        loads.push(paths);
    }
    bucket.run_well(&["user", "list", "--dir", dir]);
    let children: Vec<Child> = loads
        .iter()
        .map(|paths| {
            let mut one = bucket.program(&["load", "--dir", dir, "orders"]);
            one.args(paths).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let all = PROCESSES * FILES_EACH * ROWS;
    let sums = "SELECT count(*), count(DISTINCT order_id), sum(amount)::bigint FROM orders";
    let expected = format!("{all},{all},{}", all * (all - 1) / 2);
    assert_eq!(bucket.line(dir, sums), expected);
    let again = bucket.program(&["load", "--dir", dir, "orders"]).args(&loads[0]).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(said.matches("already loaded").count(), FILES_EACH, "{said}");
    bucket.run_well(&["compact", "--dir", dir, "orders"]);
    assert_eq!(bucket.line(dir, sums), expected);

    let corrected = files.path().join("corrected.csv");
    let text =
        "order_id,source,record_id,ordered_at,amount\no7,web,c7,2026-03-01 10:00:00,1000007\n";
    std::fs::write(&corrected, text).unwrap();
    let corrected = corrected.to_str().unwrap();
    let latest = ["--key", "order_id", "--latest", "amount"];
    let upsert = [&["load", "--dir", dir], latest.as_slice(), &["orders", corrected]].concat();
    bucket.run_well(&upsert);
    let moved = format!("{all},{all},{}", all * (all - 1) / 2 + 1_000_000);
    assert_eq!(bucket.line(dir, sums), moved);

    bucket.run_well(&["erase", "--dir", dir, "--source", "web", "c96"]);
    let of_c96 = (0..all).filter(|order| order % 97 == 96).count();
    assert_eq!(bucket.line(dir, "SELECT count(*) FROM orders"), (all - of_c96).to_string());
    assert_eq!(bucket.run(&["check", "--dir", dir, "--files"]).status.code(), Some(0));

    // A copy of the prefix is a warehouse of its own, as a copy of a folder is.
    bucket.copy("warehouse", "backup");
    let copied = bucket.line("s3://shop/backup", "SELECT count(*) FROM orders");
    assert_eq!(copied, (all - of_c96).to_string());
    bucket.run_well(&["sql", "--dir", "s3://shop/backup", "DROP TABLE orders"]);
    assert_eq!(bucket.line(dir, "SELECT count(*) FROM orders"), copied);

    // Who ends well says goodbye: a vacuum waits for nobody.
    assert_eq!(bucket.keys("warehouse/_clientele/readers/"), Vec::<String>::new());
    let seen = bucket.end();
    for kind in ["late faults", "412", "status", "reset", "cut"] {
        assert!(seen[kind].as_u64().is_some_and(|times| times > 0), "{kind}: {seen}");
    }
    eprintln!("{seen}");
}

/// Carries connections to a port of this machine, until it is stopped: then they all end, and no new one is taken.
async fn carry(from: TcpListener, to: u16) {
    let mut carried = tokio::task::JoinSet::new();
    while let Ok((mut near, _)) = from.accept().await {
        carried.spawn(async move {
            let mut far = TcpStream::connect(("127.0.0.1", to)).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await
        });
    }
}

/// A server over a bucket: users, loads by COPY beside it, and an answer for each statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_served_as_a_folder_is() {
    let Some(bucket) = Bucket::start(&["serve", FAULTS]) else { return };
    let dir = "s3://shop";
    let mut add = bucket.program(&["user", "add", "ann", "--dir", dir]);
    assert!(add.env("CLIENTELE_PASSWORD", "correct horse").status().unwrap().success());
    assert_eq!(bucket.run_well(&["user", "list", "--dir", dir]), "ann\n");
    let road = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = road.local_addr().unwrap();
    let road = tokio::spawn(carry(road, bucket.port));
    let mut server = bucket.program(&["serve", "--dir", dir, "--listen", "127.0.0.1:0"]);
    server.env("RUST_LOG", "debug").env("AWS_ENDPOINT_URL", format!("http://{entry}"));
    let mut server = server.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let port = loop {
        let line = lines.next().unwrap().unwrap();
        assert!(!line.contains(SECRET));
        if let Some((_, address)) = line.split_once(" at 127.0.0.1:") {
            break address.trim().to_owned();
        }
    };
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let url = |password: &str| {
        format!("host=127.0.0.1 port={port} user=ann password='{password}' dbname=clientele")
    };
    let refused = tokio_postgres::connect(&url("wrong horse"), tokio_postgres::NoTls).await;
    assert_eq!(refused.map(|_| ()).map_err(|e| code(&e).to_owned()), Err("28P01".to_owned()));
    let (client, connection) =
        tokio_postgres::connect(&url("correct horse"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE t (n BIGINT)").await.unwrap();
    for n in 0..10i64 {
        client.execute("INSERT INTO t VALUES ($1)", &[&n]).await.unwrap();
        bucket.run_well(&["sql", "--dir", dir, &format!("INSERT INTO t VALUES ({})", n + 10)]);
    }
    let row = client.query_one("SELECT count(*), sum(n)::bigint FROM t", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (20, 190));
    let gone = client.batch_execute("SELECT * FROM nosuch").await.unwrap_err();
    assert_eq!(code(&gone), "42P01");

    // The store is away for a while: who writes waits, and is answered as if nothing had been.
    road.abort();
    let _ = road.await;
    let to = bucket.port;
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        carry(TcpListener::bind(entry).await.unwrap(), to).await;
    });
    let written = client.execute("INSERT INTO t VALUES (100)", &[]).await;
    assert_eq!(written.unwrap(), 1);
    let row = client.query_one("SELECT count(*), sum(n)::bigint FROM t", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (21, 290));
    signal(server.id(), "TERM");
    assert!(server.wait().unwrap().success());
    assert!(rest.join().unwrap().iter().all(|line| !line.contains(SECRET)));
}

#[test]
fn what_cannot_hold_a_warehouse_is_refused_in_words() {
    let refused = |output: &Output, with: &str| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(with) && !said.contains(SECRET), "{said}");
    };
    let Some(bucket) = Bucket::start(&["careless"]) else { return };
    let statement = ["sql", "SELECT 1", "--dir"];
    let of = |dir: &'static str| [statement.as_slice(), &[dir]].concat();
    refused(&bucket.run(&of("s3://shop/w")), "lets two writers create the same object");
    refused(&bucket.run(&of("s3://nosuch/w")), "there is no bucket \"nosuch\"");
    refused(&bucket.run(&of("gs://shop/w")), "not under gs://");
    refused(&bucket.run(&of("s3://shop//w")), "the prefix has an empty part");
    refused(&bucket.run(&of("s3:shop/w")), "one is named as s3://bucket/prefix");
    for (name, value, told) in [
        ("AWS_ACCESS_KEY_ID", "AKIA\nTEST", "AWS_ACCESS_KEY_ID has a character in it"),
        ("AWS_ACCESS_KEY_ID", "", "only one is set"),
        ("AWS_ENDPOINT_URL", "http://me:hidden@127.0.0.1:1", "has a user or a password in it"),
    ] {
        let mut odd = bucket.program(&of("s3://shop/w"));
        let output = odd.env(name, value).output().unwrap();
        refused(&output, told);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hidden"));
    }
    let mut nobody = bucket.program(&of("s3://shop/w"));
    nobody.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let told = nobody.output().unwrap();
    refused(&told, "the bucket \"shop\" cannot be used");
    refused(&told, "asked: http://127.0.0.1:1");
}
