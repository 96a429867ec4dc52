//! The command line: what it prints, what it returns.

use std::io::Write;

use super::server::{csv, number, program, run, run_well};

fn warehouse() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w").display().to_string();
    (dir, path)
}

fn file(dir: &tempfile::TempDir, name: &str, content: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_load_makes_the_table_and_a_second_one_says_already_loaded() {
    let (dir, w) = warehouse();
    let csv =
        file(&dir, "shop.csv", "code,qty,price,day\n007,1,2.5,2024-01-01\n008,,3,2024-01-02\n");
    let first = run(&["load", "--dir", &w, "shop", &csv]);
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stderr(&first).contains("2 rows loaded into shop"));
    assert!(first.stdout.is_empty());
    // The same content under another name is the same load.
    let renamed =
        file(&dir, "other.csv", "code,qty,price,day\n007,1,2.5,2024-01-01\n008,,3,2024-01-02\n");
    assert!(stderr(&run(&["load", "--dir", &w, "shop", &renamed])).contains("already loaded"));
    let rows =
        run_well(&["sql", "--dir", &w, "--format", "csv", "SELECT * FROM shop ORDER BY code"]);
    assert_eq!(rows, "code,qty,price,day\n007,1,2.5,2024-01-01\n008,,3,2024-01-02\n");
    let loads = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "json",
        "SELECT source, rows_loaded FROM system.loads",
    ]);
    assert_eq!(loads, "{\"source\":\"shop.csv\",\"rows_loaded\":2}\n");
}

#[test]
fn bad_rows_go_to_quarantine_up_to_the_limit() {
    let (dir, w) = warehouse();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE p (id BIGINT, phone TEXT, day DATE)"]);
    let csv = file(
        &dir,
        "p.csv",
        "id,phone,day\n1,15400000001,2024-01-01\nx,15400000002,2024-01-01\n3,15400000003,2024-02-30\n4,5\n",
    );
    let refused = run(&["load", "--dir", &w, "p", &csv]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused)
            .contains("3 of 4 rows do not fit the table; 1% are allowed, nothing was loaded"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(
        run_well(&["sql", "--dir", &w, "--format", "csv", "SELECT count(*) FROM p"]),
        "count\n0\n"
    );
    let taken = run(&["load", "--dir", &w, "--max-bad", "75%", "p", &csv]);
    assert!(
        stderr(&taken).contains("1 rows loaded into p, 3 put into system.quarantine"),
        "{}",
        stderr(&taken)
    );
    let rows = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "csv",
        "SELECT line, column_name, value, reason FROM system.quarantine ORDER BY line",
    ]);
    assert_eq!(
        rows,
        "line,column_name,value,reason\n3,id,x,is not a whole number\n4,day,2024-02-30,is not a date such as 2011-12-09\n5,\"\",\"\",has 2 values instead of 3\n"
    );
}

#[test]
fn values_of_personal_columns_never_leave_the_data() {
    let (dir, w) = warehouse();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&[
        "sql",
        "--dir",
        &w,
        "CREATE TABLE p (id BIGINT, birth_date DATE, secret BIGINT PERSONAL)",
    ]);
    let csv = file(&dir, "p.csv", "id,birth_date,secret\n1,1990-13-45,1\n2,1990-01-01,geheim-77\n");
    let refused = run(&["load", "--dir", &w, "p", &csv]);
    assert!(!stderr(&refused).contains("1990-13-45"), "{}", stderr(&refused));
    run_well(&["load", "--dir", &w, "--max-bad", "100%", "p", &csv]);
    let rows = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "csv",
        "SELECT value FROM system.quarantine ORDER BY line",
    ]);
    assert_eq!(rows, "value\n9999-99-99\naaaaaa-99\n");
}

#[test]
fn json_lines_gzip_patterns_and_folders_load() {
    let (dir, w) = warehouse();
    file(
        &dir,
        "a1.jsonl",
        "{\"id\":1,\"name\":\"x\"}\n{\"id\":2,\"name\":null,\"more\":{\"k\":[1]}}\n",
    );
    let mut gz = flate2_file(&dir, "a2.jsonl.gz");
    gz.write_all(b"{\"id\":3,\"name\":\"z\"}\n").unwrap();
    gz.finish().unwrap();
    let pattern = dir.path().join("a*.jsonl*").display().to_string();
    run_well(&["load", "--dir", &w, "j", &pattern]);
    let rows = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "csv",
        "SELECT id, name, more FROM j ORDER BY id",
    ]);
    assert_eq!(rows, "id,name,more\n1,x,\n2,,\"{\"\"k\"\":[1]}\"\n3,z,\n");
    let nothing =
        run(&["load", "--dir", &w, "j", &dir.path().join("b*.jsonl").display().to_string()]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(stderr(&nothing).contains("no file matches"));
}

/// What is said of a file that cannot be read, and of rows that do not fit, leads to them.
#[test]
fn files_and_lines_are_told_as_an_editor_shows_them() {
    let (dir, w) = warehouse();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE p (id BIGINT, note TEXT)"]);
    let text = "id,note\n1,\"two\nlines\"\n\n\nx,one\n2,\"a\n\n\nb\"\ny,two\n";
    for (name, text) in [("lf.csv", text.to_owned()), ("crlf.csv", text.replace('\n', "\r\n"))] {
        let csv = file(&dir, name, &text);
        run_well(&["load", "--dir", &w, "--max-bad", "2", "p", &csv]);
        let lines =
            format!("SELECT line FROM system.quarantine WHERE source = '{name}' ORDER BY line");
        let lines = run_well(&["sql", "--dir", &w, "--format", "csv", &lines]);
        assert_eq!(lines, "line\n6\n11\n", "{name}");
    }
    let mut gz = flate2_file(&dir, "whole.csv.gz");
    gz.write_all(b"id,note\n1,a\n2,b\n").unwrap();
    let whole = gz.finish().unwrap();
    let bytes = std::fs::read(dir.path().join("whole.csv.gz")).unwrap();
    drop(whole);
    std::fs::write(dir.path().join("half.csv.gz"), &bytes[..bytes.len() / 2]).unwrap();
    for table in ["p", "new"] {
        let half = dir.path().join("half.csv.gz").display().to_string();
        let refused = run(&["load", "--dir", &w, table, &half]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("half.csv.gz"), "{}", stderr(&refused));
    }
    let odd = run(&["load", "--dir", &w, "a.b.c", &file(&dir, "c.csv", "a\n1\n")]);
    assert!(stderr(&odd).contains("is not in this database"), "{}", stderr(&odd));
}

/// What stands between quotes is a text, also where it is spelt as NULL is.
#[test]
fn a_quoted_null_is_a_text() {
    let (dir, w) = warehouse();
    let csv = file(&dir, "n.csv", "id,note\n1,NULL\n2,\"NULL\"\n3,\n4,\"\"\nNULL,x\n");
    run_well(&["load", "--dir", &w, "--null", "NULL", "n", &csv]);
    let rows = "SELECT id, note IS NULL AS missing, note FROM n ORDER BY id NULLS LAST";
    let rows = run_well(&["sql", "--dir", &w, "--format", "json", rows]);
    let note = |id: u64, missing: bool, note: &str| {
        format!("{{\"id\":{id},\"missing\":{missing},\"note\":{note}}}\n")
    };
    let wanted = [
        note(1, true, "null"),
        note(2, false, "\"NULL\""),
        note(3, false, "\"\""),
        note(4, false, "\"\""),
        "{\"id\":null,\"missing\":false,\"note\":\"x\"}\n".to_owned(),
    ];
    assert_eq!(rows, wanted.concat());
}

#[test]
fn a_load_with_a_key_says_what_decided() {
    let (dir, w) = warehouse();
    let row = |day: &str, b: u32| format!("a,updated_at,b\n1,{day},{b}\n");
    let loaded = |name: &str, text: &str, more: &[&str]| {
        let path = file(&dir, name, text);
        let args = [&["load", "--dir", &w, "--key", "a"], more, &["k", path.as_str()]].concat();
        let done = run(&args);
        assert!(done.status.success(), "{}", stderr(&done));
        stderr(&done)
    };
    loaded("one.csv", &row("2024-01-01", 1), &[]);
    let told = loaded("two.csv", &row("2024-01-02", 2), &[]);
    assert!(told.contains("1 rows of the table were replaced by newer ones"), "{told}");
    let told = loaded("old.csv", &row("2023-01-02", 3), &[]);
    assert!(told.contains("1 rows of the load were older and left out"), "{told}");
    let rows = run_well(&["sql", "--dir", &w, "--format", "csv", "SELECT b FROM k"]);
    assert_eq!(rows, "b\n2\n");
}

fn flate2_file(dir: &tempfile::TempDir, name: &str) -> flate2::write::GzEncoder<std::fs::File> {
    let file = std::fs::File::create(dir.path().join(name)).unwrap();
    flate2::write::GzEncoder::new(file, flate2::Compression::fast())
}

#[test]
fn mistakes_are_told_with_exit_code_two_and_a_place() {
    let (_dir, w) = warehouse();
    let missing = run(&["sql", "--dir", &w, "SELECT 1"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("there is no warehouse in"), "{}", stderr(&missing));
    run_well(&["user", "--dir", &w, "list"]);
    let wrong = run(&["sql", "--dir", &w, "SELECT nosuch\nFROM system.loads"]);
    assert!(stderr(&wrong).contains("SELECT nosuch\n         ^"), "{}", stderr(&wrong));
    assert_eq!(run(&["load", "--dir", &w, "t", "/nowhere/x.csv"]).status.code(), Some(2));
    assert_eq!(
        run(&["load", "--dir", &w, "system.loads", "/nowhere/x.csv"]).status.code(),
        Some(2)
    );
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
}

#[test]
fn settings_come_from_file_and_environment_and_unknown_ones_are_refused() {
    let (_dir, w) = warehouse();
    run_well(&["user", "--dir", &w, "list"]);
    std::fs::write(format!("{w}/clientele.toml"), "[load]\nmax_bad = \"lots\"\n").unwrap();
    let refused = run(&["sql", "--dir", &w, "SELECT 1"]);
    assert!(stderr(&refused).contains("max_bad is \"lots\""), "{}", stderr(&refused));
    std::fs::write(format!("{w}/clientele.toml"), "[load]\nmax_bda = \"1%\"\n").unwrap();
    assert!(stderr(&run(&["sql", "--dir", &w, "SELECT 1"])).contains("max_bda"));
    std::fs::remove_file(format!("{w}/clientele.toml")).unwrap();
    let output = program()
        .args(["sql", "--dir", &w, "SELECT 1"])
        .env("CLIENTELE_MEMORY__LIMT_MB", "5")
        .output()
        .unwrap();
    assert!(stderr(&output).contains("limt_mb"), "{}", stderr(&output));
}

#[test]
fn help_names_every_command() {
    let help = run_well(&["--help"]);
    for command in ["demo", "serve", "load", "sql", "user"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn a_column_that_stays_text_for_a_few_values_is_told_of() {
    let (dir, w) = warehouse();
    let mut rows = String::from("id,qty\n");
    (0..40).for_each(|i| rows.push_str(&format!("{i},{i}\n")));
    rows.push_str("40,n/a\n");
    let csv = file(&dir, "q.csv", &rows);
    let loaded = run(&["load", "--dir", &w, "q", &csv]);
    assert!(loaded.status.success());
    let told = stderr(&loaded);
    assert!(
        told.contains(
            "note: column \"qty\" is text: 1 of the first 41 values are not whole numbers"
        ),
        "{told}"
    );
    assert!(told.contains("line 42"), "{told}");
}

/// A source sends rows again, corrected, late and out of order; whatever the order, the newest version of each stays.
#[test]
fn a_load_with_a_key_keeps_the_newest_version_in_any_order() {
    let (dir, _) = warehouse();
    let head = "order_id,status,amount,updated_at\n";
    let day = |d: u32| format!("2024-01-0{} 10:00", d + 1);
    let rows = |rows: &[(&str, &str, u32)]| {
        let line = |(id, status, d): &(&str, &str, u32)| format!("{id},{status},{d},{}\n", day(*d));
        head.to_owned() + &rows.iter().map(line).collect::<String>()
    };
    let files = [
        file(
            &dir,
            "1.csv",
            &rows(&[("a", "new", 1), ("b", "new", 1), ("c", "new", 1), ("a", "paid", 2)]),
        ),
        // The same instant with another content: one of the two, always the same one. A row without a key is no other's.
        file(
            &dir,
            "2.csv",
            &rows(&[("a", "sent", 3), ("b", "lost", 5), ("d", "x", 4), ("", "?", 1)]),
        ),
        file(
            &dir,
            "3.csv",
            &rows(&[("b", "found", 5), ("c", "old", 0), ("d", "y", 4), ("a", "new", 1)]),
        ),
    ];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let ddl = "CREATE TABLE t (order_id TEXT, status TEXT, amount INT, updated_at TIMESTAMPTZ) CLUSTER BY (order_id) BUCKETS 2";
    let mut answers = Vec::new();
    for (i, order) in orders.iter().enumerate() {
        let w = dir.path().join(format!("w{i}")).display().to_string();
        run_well(&["user", "--dir", &w, "list"]);
        run_well(&["sql", "--dir", &w, ddl]);
        for at in order {
            let loaded = run(&["load", "--dir", &w, "t", "--key", "order_id", &files[*at]]);
            assert!(loaded.status.success(), "{}", stderr(&loaded));
        }
        let sql = "SELECT order_id, status, amount FROM t ORDER BY order_id";
        answers.push(run_well(&["sql", "--dir", &w, "--format", "csv", sql]));
        // What came again is known, and a second load of it changes nothing.
        let again = run(&["load", "--dir", &w, "t", "--key", "order_id", &files[0]]);
        assert!(stderr(&again).contains("already loaded"), "{}", stderr(&again));
        run_well(&["check", "--dir", &w]);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let lines: Vec<&str> = answers[0].lines().collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert!(lines.contains(&"a,sent,3") && lines.contains(&"c,new,1"), "{lines:?}");
    assert_eq!(lines.iter().filter(|l| l.starts_with("b,")).count(), 1);
    let w = dir.path().join("w0").display().to_string();
    let wrong = run(&["load", "--dir", &w, "t", "--key", "order", &files[0]]);
    assert!(stderr(&wrong).contains("key column \"order\" does not exist"), "{}", stderr(&wrong));
}

/// Two processes correct the same rows at once: one row a key, and each the newest.
#[test]
fn corrections_at_once_leave_one_row_a_key() {
    let (dir, w) = warehouse();
    run_well(&["user", "--dir", &w, "list"]);
    run_well(&["sql", "--dir", &w, "CREATE TABLE t (id INT, v INT, updated_at TIMESTAMPTZ)"]);
    const ROUNDS: usize = 6;
    let files: Vec<String> = (0..ROUNDS * 2)
        .map(|round| {
            let rows: String =
                (0..50).map(|id| format!("{id},{round},2024-01-01 10:{round:02}\n")).collect();
            file(&dir, &format!("{round}.csv"), &format!("id,v,updated_at\n{rows}"))
        })
        .collect();
    let w = w.as_str();
    std::thread::scope(|scope| {
        for half in files.chunks(ROUNDS) {
            scope.spawn(move || {
                for file in half {
                    run_well(&["load", "--dir", w, "t", "--key", "id", file]);
                }
            });
        }
    });
    let sql =
        "SELECT count(*) AS n, count(DISTINCT id) AS ids, min(v) AS low, max(v) AS high FROM t";
    let newest = ROUNDS * 2 - 1;
    assert_eq!(
        run_well(&["sql", "--dir", w, "--format", "csv", sql]),
        format!("n,ids,low,high\n50,50,{newest},{newest}\n")
    );
}

/// A source gets a new column: the table gets it too. A misspelt one is told instead.
#[test]
fn a_column_that_a_file_brings_is_added() {
    let (dir, w) = warehouse();
    let load = |name: &str, text: &str| run(&["load", "--dir", &w, "t", &file(&dir, name, text)]);
    assert!(load("1.csv", "order_id,city\na,Berlin\n").status.success());
    let more = load("2.csv", "order_id,city,phone,amount\nb,Köln,15400000001,2.50\nc,Bonn,,\n");
    let told = stderr(&more);
    assert!(more.status.success() && told.contains("column \"phone\" is new"), "{told}");
    assert!(told.contains("column \"amount\" is new"), "{told}");
    let sql = "SELECT order_id, phone, amount + 1 AS more FROM t ORDER BY order_id";
    assert_eq!(
        run_well(&["sql", "--dir", &w, "--format", "csv", sql]),
        "order_id,phone,more\na,,\nb,15400000001,3.5\nc,,\n"
    );
    // A new column that is PERSONAL by its name has no statistics, and is masked where it is told of.
    let described = run_well(&[
        "sql",
        "--dir",
        &w,
        "--format",
        "csv",
        "SELECT column_name FROM information_schema.columns WHERE table_name = 't' ORDER BY 1",
    ]);
    assert_eq!(described, "column_name\namount\ncity\norder_id\nphone\n");
    let mistake = load("3.csv", "order_id,citty,phone,amount\nd,Ulm,,1\n");
    let told = stderr(&mistake);
    assert_eq!(mistake.status.code(), Some(2));
    assert!(told.contains("\"citty\"") && told.contains("perhaps it is \"city\""), "{told}");
    let beside = load("4.csv", "order_id,city,city2\ne,Ulm,Neu-Ulm\n");
    assert!(beside.status.success(), "{}", stderr(&beside));
    let count =
        run_well(&["sql", "--dir", &w, "--format", "csv", "SELECT count(city2) AS n FROM t"]);
    assert_eq!(count, "n\n1\n");
}

/// What a graph computes is not loaded over; what is said by hand may come from a file.
#[test]
fn nobody_loads_over_the_result_of_a_graph() {
    let (dir, w) = warehouse();
    let ids = "source,record_id,id_type,id_value\na,1,phone,15400000001\nb,2,phone,15400000001\n";
    run_well(&["load", "--dir", &w, "ids", &file(&dir, "ids.csv", ids)]);
    let graph = "CREATE IDENTITY GRAPH customer FROM ids; REFRESH IDENTITY GRAPH customer";
    run_well(&["sql", "--dir", &w, graph]);
    let map = file(&dir, "map.csv", "source,record_id,one_id,since_run\nx,y,1,1\n");
    let refused = run(&["load", "--dir", &w, "customer.map", &map]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("belongs to the identity graph"), "{}", stderr(&refused));
    let said = file(&dir, "said.csv", "op,a,b,by\ncannot_link,a/1,b/2,u7\n");
    run_well(&["load", "--dir", &w, "customer.overrides", &said]);
    run_well(&["sql", "--dir", &w, "REFRESH IDENTITY GRAPH customer"]);
    let count = "SELECT count(DISTINCT one_id) AS n FROM customer.map";
    assert_eq!(run_well(&["sql", "--dir", &w, "--format", "csv", count]), "n\n2\n");
}

/// New columns come with rows: of several first files all, and of a load that loads nothing none.
#[test]
fn columns_come_with_rows() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let one = file("1.csv", "order_id,amount\na,1\n");
    let two = file("2.csv", "order_id,amount,channel\nb,2,web\n");
    run_well(&["load", "--dir", &w, "t", &one, &two]);
    assert_eq!(csv(&w, "SELECT order_id, channel FROM t ORDER BY 1"), [["a", ""], ["b", "web"]]);
    let good = file("3.csv", "order_id,amount,channel\nc,3,app\n");
    let bad = file("4.csv", "order_id,amount,channel,brand\nd,much,app,x\n");
    let refused = run(&["load", "--dir", &w, "t", &good, &bad]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("are taken back") && told.contains("4.csv: line 2"), "{told}");
    let columns = "SELECT count(*) AS n FROM information_schema.columns WHERE table_name = 't'";
    assert_eq!((number(&w, columns), number(&w, "SELECT count(*) AS n FROM t")), (3, 2));
    let fits = file("5.csv", "order_id,amount,channel,brand\nd,4,app,x\n");
    run_well(&["load", "--dir", &w, "t", &good, &fits]);
    assert_eq!((number(&w, columns), number(&w, "SELECT count(*) AS n FROM t")), (4, 4));
}

/// A dot in a name is a character as any other: not a way into a column.
#[test]
fn a_column_with_a_dot_in_its_name_is_a_key_and_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w").display().to_string();
    let first = file(&dir, "first.csv", "a.b,x\n1,1\n2,2\n");
    let second = file(&dir, "second.csv", "a.b,x\n1,5\n3,2\n");
    run_well(&["load", "--dir", &w, "--key", "a.b", "t", &first]);
    run_well(&["load", "--dir", &w, "--key", "a.b", "t", &second]);
    let rows = "SELECT \"a.b\" FROM t ORDER BY 1";
    assert_eq!(run_well(&["sql", "--dir", &w, "--format", "csv", rows]), "a.b\n1\n2\n3\n");
    let table = "CREATE TABLE c (source TEXT, record_id TEXT, w TIMESTAMPTZ, \"a.b\" BIGINT, \"a\" BIGINT) CLUSTER BY (source, record_id, w)";
    run_well(&["sql", "--dir", &w, table]);
    for at in 1..4 {
        let row = format!("INSERT INTO c VALUES ('s', 'r{at}', '2020-01-0{at}', {at}, {at} * 10)");
        run_well(&["sql", "--dir", &w, &row]);
    }
    run_well(&["sql", "--dir", &w, "COMPACT TABLE c"]);
    let sums = "SELECT sum(\"a.b\") AS dotted, sum(a) AS plain FROM c";
    assert_eq!(run_well(&["sql", "--dir", &w, "--format", "csv", sums]), "dotted,plain\n6,60\n");
}

/// Which of two rows of one key counts is the same in whatever order files come, also when one of them brings a column.
#[test]
fn a_new_column_changes_nothing_of_which_row_counts() {
    let (dir, w) = warehouse();
    let rows =
        |value: &str| (0..12).map(|k| format!("k{k},2024-01-01,{value}{k}\n")).collect::<String>();
    let a = file(&dir, "a.csv", &format!("k,updated_at,v\n{}", rows("a")));
    let c = file(&dir, "c.csv", &format!("k,updated_at,v\n{}", rows("c")));
    let b = file(&dir, "b.csv", "k,updated_at,v,extra\nzz,2024-01-01,b,1\n");
    let d = file(&dir, "d.csv", "k,updated_at,v,also\nyy,2024-01-01,d,1\n");
    let orders = [[&a, &c, &b, &d], [&a, &b, &c, &d], [&d, &c, &b, &a], [&b, &d, &a, &c]];
    let mut kept = Vec::new();
    for (at, order) in orders.iter().enumerate() {
        let table = format!("t{at}");
        for file in order {
            run_well(&["load", "--dir", &w, "--key", "k", &table, file]);
        }
        kept.push(csv(&w, &format!("SELECT k, v FROM {table} ORDER BY k")));
    }
    assert_eq!(kept[0].len(), 14);
    assert!(kept.iter().all(|rows| *rows == kept[0]), "{kept:?}");
    let of = |value: &str| kept[0].iter().filter(|row| row[1].starts_with(value)).count();
    assert!(of("a") > 0 && of("c") > 0, "the content decides, not the file");
}

/// A zero is one key, whatever its sign, as it is one value for SQL.
#[test]
fn a_key_that_is_zero_is_one_row() {
    let (dir, w) = warehouse();
    for (name, row) in [("one.csv", "-0.0,2024-01-01,c"), ("two.csv", "0.0,2024-01-02,d")] {
        let file = file(&dir, name, &format!("id,updated_at,v\n{row}\n"));
        run_well(&["load", "--dir", &w, "--key", "id", "t", &file]);
    }
    assert_eq!(csv(&w, "SELECT v FROM t"), [["d"]]);
}

/// What tells rows apart has to be in the input: NULL would be like no other, and each load would add its rows once more.
#[test]
fn an_input_without_its_key_is_refused() {
    let (dir, w) = warehouse();
    let whole = file(&dir, "whole.csv", "Order_ID,Updated_At,amount\n1,2024-01-01,1.5\n");
    run_well(&["load", "--dir", &w, "--key", "order_id", "t", &whole]);
    let newer = file(&dir, "newer.csv", "order_id,updated_at,amount\n1,2024-01-02,2.5\n");
    let older = file(&dir, "older.csv", "order_id,updated_at,amount\n1,2023-01-02,9\n");
    for file in [&newer, &older] {
        run_well(&["load", "--dir", &w, "--key", "ORDER_ID", "t", file]);
    }
    assert_eq!(csv(&w, "SELECT amount FROM t"), [["2.5"]], "Updated_At says which is newer");
    let without = file(&dir, "without.csv", "updated_at,amount\n2024-01-02,7\n");
    let refused = run(&["load", "--dir", &w, "--key", "order_id", "t", &without]);
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    assert!(
        told.contains("has no column \"Order_ID\", by which its rows are told apart"),
        "{told}"
    );
    let lines = "{\"amount\":7}\n{\"Updated_At\":\"2024-01-02\"}\n";
    let lines = file(&dir, "without.json", lines);
    let told = stderr(&run(&["load", "--dir", &w, "--key", "order_id", "t", &lines]));
    assert!(told.contains("by which its rows are told apart"), "{told}");
    assert_eq!(csv(&w, "SELECT count(*) FROM t"), [["1"]]);
}

/// A file that is separated by something else, or is written in another alphabet, is not taken for a table of one odd column.
#[test]
fn a_file_that_was_misread_changes_no_table() {
    let (dir, w) = warehouse();
    let good = file(&dir, "good.csv", "id,amount\n1,2\n");
    run_well(&["load", "--dir", &w, "t", &good]);
    let odd = file(&dir, "odd.csv", "id;amount\n3;4\n");
    for table in ["t", "new"] {
        let refused = run(&["load", "--dir", &w, table, &odd]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("--delimiter ';'"), "{}", stderr(&refused));
    }
    run_well(&["load", "--dir", &w, "--delimiter", ";", "t", &odd]);
    let other = file(&dir, "other.csv", "name,city\nx,y\n");
    let refused = run(&["load", "--dir", &w, "t", &other]);
    assert!(
        stderr(&refused).contains("other.csv has no column that the table has"),
        "{}",
        stderr(&refused)
    );
    let utf16: Vec<u8> =
        "\u{feff}id,amount\n5,6\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wide = dir.path().join("wide.csv");
    std::fs::write(&wide, utf16).unwrap();
    let refused = run(&["load", "--dir", &w, "t", wide.to_str().unwrap()]);
    assert!(stderr(&refused).contains("is UTF-16"), "{}", stderr(&refused));
    assert_eq!(csv(&w, "SELECT id, amount FROM t ORDER BY id"), [["1", "2"], ["3", "4"]]);
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 't'";
    assert_eq!(csv(&w, columns), [["2"]]);
}

/// A record is known by its columns however a file spells them: erasures and checks find what is in capitals.
#[test]
fn a_record_in_capitals_is_erased_and_checked() {
    let (dir, w) = warehouse();
    let first =
        file(&dir, "first.csv", "Source,Record_ID,Phone\nweb,p1,00000000000\nweb,p2,13800138000\n");
    run_well(&["load", "--dir", &w, "crm", &first]);
    let second =
        file(&dir, "second.json", "{\"SOURCE\":\"web\",\"Record_Id\":\"p1\",\"phone\":\"N/A\"}\n");
    run_well(&["load", "--dir", &w, "crm", &second]);
    run_well(&["check", "--quality", "--dir", &w, "crm"]);
    let found = csv(
        &w,
        "SELECT check_name, source, rows, failed FROM system.quality WHERE column_name = 'Phone' ORDER BY 1",
    );
    assert_eq!(found, [["completeness", "web", "3", "1"], ["validity", "web", "2", "1"]]);
    run_well(&["erase", "--dir", &w, "--source", "web", "p1", "--now"]);
    assert_eq!(csv(&w, "SELECT record_id FROM crm"), [["p2"]]);
    let hidden = "CREATE TABLE h (\"Source\" TEXT, \"Record_ID\" TEXT)";
    let later = "CREATE TABLE h (source TEXT); ALTER TABLE h ADD COLUMN \"Record_ID\" TEXT";
    for statement in [hidden, later] {
        let told = stderr(&run(&["sql", "--dir", &w, statement]));
        assert!(told.contains("an erasure would not find its rows"), "{told}");
    }
}
