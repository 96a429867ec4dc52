//! Bad disks: an answer is right or an error, and an error names the file.

use std::path::{Path, PathBuf};

use super::server::{Server, code, run, run_well};

/// Flips of a run in CI; `CLIENTELE_TEST_FLIPS=1000` is the long one.
fn flips() -> u64 {
    std::env::var("CLIENTELE_TEST_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

fn files_in(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.display().to_string().ends_with(ending))
        .collect();
    found.sort();
    found
}

/// Numbers that look random and are the same in every run.
fn noise(i: u64) -> u64 {
    let mut x = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 31;
    x.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

const ROWS: &str = "CREATE TABLE t AS WITH d(x) AS (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) \
    SELECT n, 'customer ' || (n * 7919) AS name, n * 1.25 AS amount, TIMESTAMPTZ '2024-01-01 00:00:00Z' + n * INTERVAL '1 minute' AS at \
    FROM (SELECT a.x + 10 * b.x + 100 * c.x + 1000 * d.x AS n FROM d AS a, d AS b, d AS c, d) AS numbers";

const QUESTION: &str = "SELECT count(*)::text || ' ' || sum(n)::text || ' ' || sum(length(name))::text || ' ' || sum(amount)::text || ' ' || max(at)::text || ' ' || max(name) FROM t";

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_a_wrong_answer() {
    for codec in ["zstd", "snappy", "lz4"] {
        let dir = tempfile::tempdir().unwrap();
        let w = dir.path().join("w");
        let config = dir.path().join("clientele.toml");
        std::fs::write(&config, format!("[storage]\ncompression = \"{codec}\"\n")).unwrap();
        let server = Server::start_in(&w, &["--config", config.to_str().unwrap()]);
        let client = server.connect().await;
        client.batch_execute(ROWS).await.unwrap();
        let right: String = client.query_one(QUESTION, &[]).await.unwrap().get(0);
        let files = files_in(&w.join("public/t"), ".parquet");
        assert_eq!(files.len(), 1);
        let whole = std::fs::read(&files[0]).unwrap();
        let mut refused = 0;
        for i in 0..flips() {
            let mut bad = whole.clone();
            let bit = noise(i) % (bad.len() as u64 * 8);
            bad[(bit / 8) as usize] ^= 1 << (bit % 8);
            std::fs::write(&files[0], &bad).unwrap();
            match client.query_one(QUESTION, &[]).await {
                Ok(row) => assert_eq!(row.get::<_, String>(0), right, "{codec}, bit {bit}"),
                Err(error) => {
                    assert_eq!(code(&error), "XX001", "{codec}, bit {bit}: {error:?}");
                    let message = error.as_db_error().unwrap().message();
                    assert!(message.contains("is damaged at byte"), "{message}");
                    refused += 1;
                }
            }
            let found = client.query("CHECK TABLE t", &[]).await.unwrap();
            assert_eq!(found[0].get::<_, String>("state"), "damaged", "{codec}, bit {bit}");
        }
        std::fs::write(&files[0], &whole).unwrap();
        assert_eq!(client.query_one(QUESTION, &[]).await.unwrap().get::<_, String>(0), right);
        assert!(refused * 2 > flips(), "{codec}: {refused} of {} were noticed", flips());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_shortened_files_are_named_and_other_tables_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let path = w.display().to_string();
    run_well(&["load", "--dir", &path, "other", &csv(&dir)]);
    let made = ROWS.to_owned() + "; " + &ROWS.replace("TABLE t ", "TABLE u ");
    run_well(&["sql", "--dir", &path, &made]);
    let file = files_in(&w.join("public/t"), ".parquet").remove(0);
    let whole = std::fs::read(&file).unwrap();
    for (what, damage) in [("cut", &whole[..whole.len() / 2]), ("empty", &[][..])] {
        std::fs::write(&file, damage).unwrap();
        // A process of its own: nothing of the file is in memory.
        let refused = run(&["sql", "--dir", &path, QUESTION]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{what}: {told}");
        assert!(told.contains("bytes instead of"), "{what}: {told}");
        let checked = run(&["check", "--dir", &path]);
        assert_eq!(checked.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&checked.stdout).starts_with("t\tpublic/t/part-"));
        assert!(run(&["check", "--dir", &path, "u"]).status.success());
    }
    std::fs::remove_file(&file).unwrap();
    let refused = run(&["sql", "--dir", &path, QUESTION]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is missing"));
    assert_eq!(
        run_well(&["sql", "--dir", &path, "--format", "csv", "SELECT count(*) AS n FROM u"]),
        "n\n10000\n"
    );
    std::fs::write(&file, &whole).unwrap();
    assert!(run(&["check", "--dir", &path]).status.success());
}

/// Whatever bit of a table's log flips, of its entries or of a checkpoint: an answer is right or an error, and no file is taken twice.
#[test]
fn a_flipped_bit_in_a_log_is_never_a_wrong_answer_nor_a_second_load() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let path = w.display().to_string();
    let file = |n: i64| {
        let file = dir.path().join(format!("f{n}.csv"));
        let rows = (0..20).map(|i| format!("{},2024-01-{:02},{}.5\n", n * 20 + i, n + 1, i));
        std::fs::write(&file, format!("id,day,v\n{}", rows.collect::<String>())).unwrap();
        file.display().to_string()
    };
    let files: Vec<String> = (0..4).map(file).collect();
    for file in &files[..3] {
        run_well(&["load", "--dir", &path, "t", file]);
    }
    // A vacuum makes a checkpoint, with which the log begins then.
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, "[storage]\nkeep_days = 0\n").unwrap();
    run_well(&["sql", "--dir", &path, "--config", config.to_str().unwrap(), "VACUUM"]);
    run_well(&["load", "--dir", &path, "t", &files[3]]);
    let question = "SELECT count(*)::text || ' ' || sum(id)::text || ' ' || sum(v)::text || ' ' || max(day)::text AS all_of_it FROM t";
    let ask = || run(&["sql", "--dir", &path, "--format", "csv", question]);
    let right = ask();
    assert!(right.status.success());
    let log = w.join("public/t/_delta_log");
    let parts: Vec<(PathBuf, Vec<u8>)> = files_in(&log, "")
        .into_iter()
        .map(|part| (part.clone(), std::fs::read(part).unwrap()))
        .collect();
    assert!(
        parts.iter().any(|(part, _)| part.display().to_string().contains("checkpoint.parquet"))
    );
    let newest = files_in(&log, ".json").pop();
    let bits: u64 = parts.iter().map(|(_, whole)| whole.len() as u64 * 8).sum();
    let (mut noticed, mut loads) = (0, 0);
    for i in 0..flips() {
        let mut bit = noise(i) % bits;
        let (part, whole) = parts
            .iter()
            .find(|(_, whole)| match bit.checked_sub(whole.len() as u64 * 8) {
                Some(after) => {
                    bit = after;
                    false
                }
                None => true,
            })
            .unwrap();
        let mut bad = whole.clone();
        bad[(bit / 8) as usize] ^= 1 << (bit % 8);
        std::fs::write(part, &bad).unwrap();
        let at = format!("{}, bit {bit}", part.display());
        // An answer is right, or there is none, with a word about where to look.
        let is_told = |refused: &std::process::Output| {
            let told = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(
                refused.status.code() == Some(2) && told.contains("clientele: "),
                "{at}: {told}"
            );
            assert!(told.contains("public/t") && !told.contains("internal error"), "{at}: {told}");
        };
        let answer = ask();
        match answer.status.success() {
            true => assert_eq!(answer.stdout, right.stdout, "{at}"),
            false => {
                noticed += 1;
                is_told(&answer);
            }
        }
        for file in &files {
            let loaded = run(&["load", "--dir", &path, "t", file]);
            let told = String::from_utf8_lossy(&loaded.stderr).into_owned();
            match loaded.status.success() {
                true => assert!(told.contains("already"), "{at}: {told}"),
                false => {
                    loads += 1;
                    is_told(&loaded);
                }
            }
        }
        if Some(part) == newest.as_ref() {
            let checked = run(&["check", "--dir", &path, "t"]);
            let told = String::from_utf8_lossy(&checked.stdout);
            assert_eq!(checked.status.code(), Some(1), "{at}: {told}");
            assert!(told.contains(part.file_name().unwrap().to_str().unwrap()), "{at}: {told}");
        }
        std::fs::write(part, whole).unwrap();
        assert_eq!(ask().stdout, right.stdout, "{at}");
    }
    assert!(noticed > 0 && loads > 0, "{noticed} answers and {loads} loads were refused");
}

/// The publish log says which loads a table has taken: a log that knows others is told of, by a load and by a check.
#[test]
fn a_load_whose_id_has_changed_in_the_log_is_not_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let path = w.display().to_string();
    let file = csv(&dir);
    let version = || {
        let newest = "SELECT max(version) AS v FROM system.versions WHERE relation = 't'";
        let told = run_well(&["sql", "--dir", &path, "--format", "csv", newest]);
        told.lines().nth(1).unwrap().to_owned()
    };
    run_well(&["load", "--dir", &path, "other", &file]);
    run_well(&["sql", "--dir", &path, "CREATE TABLE t (a INT)"]);
    let empty = version();
    run_well(&["load", "--dir", &path, "t", &file]);
    let loaded = version();
    let second = dir.path().join("second.csv");
    std::fs::write(&second, "a\n2\n").unwrap();
    let second = second.display().to_string();
    run_well(&["load", "--dir", &path, "t", &second]);
    // From now on no row of the table is in a file of those entries.
    run_well(&["load", "--dir", &path, "--key", "a", "t", &third(&dir)]);
    let entries = files_in(&w.join("public/t/_delta_log"), ".json").into_iter();
    let mut read = entries.map(|log| (std::fs::read_to_string(&log).unwrap(), log));
    let (whole, log) = read.find(|(entry, _)| entry.contains("\"load:")).unwrap();
    let (_, rest) = whole.split_once("\"load:").unwrap();
    let (id, _) = rest.split_once('"').unwrap();
    let other = id.chars().rev().collect::<String>();
    let line = whole.lines().find(|line| line.contains("\"load:")).unwrap();
    for [from, to] in [["\"load:", "\"loae:"], [id, &other], [line, ""], ["\"appId\"", "\"appIe\""]]
    {
        std::fs::write(&log, whole.replace(from, to)).unwrap();
        let refused = run(&["load", "--dir", &path, "t", &file]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{to}: {told}");
        assert!(told.contains("the log of table \"public/t\" is damaged"), "{told}");
        let entry = log.file_name().unwrap().to_str().unwrap();
        assert!(told.contains(entry), "{told}");
        let checked = run(&["check", "--dir", &path, "t"]);
        assert_eq!(checked.status.code(), Some(1), "{to}: {checked:?}");
        assert!(String::from_utf8_lossy(&checked.stdout).contains(entry), "{checked:?}");
    }
    std::fs::write(&log, &whole).unwrap();
    let load =
        || String::from_utf8_lossy(&run(&["load", "--dir", &path, "t", &file]).stderr).into_owned();
    assert!(load().contains("already"));
    let restore = |version: &str| {
        let statement = format!("RESTORE TABLE t TO VERSION AS OF {version}");
        run_well(&["sql", "--dir", &path, &statement]);
    };
    for _ in 0..2 {
        restore(&empty);
        assert!(!load().contains("already"), "it was undone");
        restore(&loaded);
        assert!(load().contains("already"));
    }
    assert!(run(&["check", "--dir", &path, "t"]).status.success());
}

/// A log that differs from what was published in anything is told of by its file: an entry by its sum, a checkpoint because all that
/// builds on it is what it was.
#[test]
fn a_log_that_is_not_what_was_published_is_told_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let path = w.display().to_string();
    run_well(&["load", "--dir", &path, "t", &csv(&dir)]);
    run_well(&["load", "--dir", &path, "--key", "a", "t", &third(&dir)]);
    let log = w.join("public/t/_delta_log");
    let told_by_check = |file: &Path, what: &str| {
        let checked = run(&["check", "--dir", &path, "t"]);
        let told = String::from_utf8_lossy(&checked.stdout).into_owned();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(checked.status.code(), Some(1), "{told}");
        assert!(told.contains(name) && told.contains(what), "{told}");
    };
    let entries = files_in(&log, ".json");
    let actions = ["commitInfo", "metaData", "protocol", "add", "remove", "txn"];
    let mut changed = 0;
    for entry in &entries {
        let whole = std::fs::read_to_string(entry).unwrap();
        for action in actions.map(|action| format!("{{\"{action}\":")) {
            let Some(at) = whole.find(&action) else { continue };
            let line = whole[at..].lines().next().unwrap();
            let digit = at + line.rfind(|c: char| c.is_ascii_digit()).unwrap();
            let mut bad = whole.clone().into_bytes();
            bad[digit] ^= 1;
            std::fs::write(entry, bad).unwrap();
            told_by_check(entry, "is not what was published: its checksum does not match");
            changed += 1;
        }
        std::fs::write(entry, whole).unwrap();
    }
    assert!(changed >= 8, "{changed}");
    let other = w.join("public/other/_delta_log");
    run_well(&["load", "--dir", &path, "other", &csv(&dir)]);
    run_well(&["load", "--dir", &path, "--key", "a", "other", &third(&dir)]);
    let config = dir.path().join("clientele.toml");
    std::fs::write(&config, "[storage]\nkeep_days = 0\n").unwrap();
    run_well(&["sql", "--dir", &path, "--config", config.to_str().unwrap(), "VACUUM"]);
    let second = dir.path().join("second.csv");
    std::fs::write(&second, "a\n3\n").unwrap();
    run_well(&["load", "--dir", &path, "t", &second.display().to_string()]);
    let [checkpoint] = &files_in(&log, ".checkpoint.parquet")[..] else { panic!("one checkpoint") };
    let whole = std::fs::read(checkpoint).unwrap();
    // A checkpoint of another table can be decoded.
    std::fs::copy(files_in(&other, ".checkpoint.parquet").pop().unwrap(), checkpoint).unwrap();
    told_by_check(checkpoint, "is not what was published");
    let ask = || {
        let asked = run(&["sql", "--dir", &path, "SELECT count(*) FROM t"]);
        String::from_utf8_lossy(&asked.stderr).into_owned()
    };
    assert!(ask().contains(".checkpoint.parquet is not what was published"), "{}", ask());
    std::fs::remove_file(checkpoint).unwrap();
    told_by_check(checkpoint, "is missing");
    assert!(ask().contains(".checkpoint.parquet is missing"), "{}", ask());
    std::fs::write(checkpoint, whole).unwrap();
    assert!(run(&["check", "--dir", &path, "t"]).status.success());
}

fn third(dir: &tempfile::TempDir) -> String {
    let path = dir.path().join("third.csv");
    std::fs::write(&path, "a\n1\n2\n").unwrap();
    path.display().to_string()
}

fn csv(dir: &tempfile::TempDir) -> String {
    let path = dir.path().join("o.csv");
    std::fs::write(&path, "a\n1\n").unwrap();
    path.display().to_string()
}

/// `count(*)` is answered from the log alone, so the log has checksums too.
#[test]
fn a_changed_digit_in_a_log_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let path = w.display().to_string();
    run_well(&["load", "--dir", &path, "other", &csv(&dir)]);
    run_well(&["sql", "--dir", &path, ROWS]);
    let count = ["sql", "--dir", &path, "--format", "csv", "SELECT count(*) AS n FROM t"];
    assert_eq!(run_well(&count), "n\n10000\n");
    let logs = files_in(&w.join("public/t/_delta_log"), ".json");
    let log = logs.last().unwrap();
    let whole = std::fs::read_to_string(log).unwrap();
    // Another number of rows; checksums that are not found any more.
    let numbers = ["\\\"numRecords\\\":10000", "\\\"numRecords\\\":10001"];
    for [from, to] in [numbers, ["clientele.crc", "clientele.crd"]] {
        let changed = whole.replace(from, to);
        assert_ne!(whole, changed);
        std::fs::write(log, changed).unwrap();
        let refused = run(&count);
        assert_eq!(refused.status.code(), Some(2));
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("is damaged at the entry of a data file"), "{told}");
    }
    assert_eq!(run(&["check", "--dir", &path, "t"]).status.code(), Some(1));
    // One that is no entry at all: the catalogue and other tables go on, and nothing is told of where in the program it was met.
    std::fs::write(log, "{xx").unwrap();
    let refused = run(&count);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("public/t: the table's log cannot be used") && !told.contains("0:"),
        "{told}"
    );
    assert!(told.contains(".json is damaged at byte"), "{told}");
    std::fs::remove_file(log).unwrap();
    let told = String::from_utf8_lossy(&run(&count).stderr).into_owned();
    assert!(told.contains("file: public/t/_delta_log/") && told.contains("is missing"), "{told}");
    assert!(!told.contains("FileMeta"), "{told}");
    let names =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1";
    let names = run_well(&["sql", "--dir", &path, "--format", "csv", names]);
    assert_eq!(names, "table_name\nother\nt\n");
    run_well(&["sql", "--dir", &path, "SELECT count(*) FROM other"]);
    // An entry that was emptied, or one whose actions no reader knows, says nothing wrong by itself: what was published does.
    for changed in [String::new(), whole.replace("{\"add\":", "{\"ade\":")] {
        std::fs::write(log, changed).unwrap();
        let refused = run(&count);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("the log of table"), "{told}");
        assert!(told.contains(log.file_name().unwrap().to_str().unwrap()), "{told}");
        assert_eq!(run(&["check", "--dir", &path, "t"]).status.code(), Some(1));
        run_well(&["sql", "--dir", &path, "SELECT count(*) FROM other"]);
    }
    std::fs::write(log, whole).unwrap();
    assert_eq!(run_well(&count), "n\n10000\n");
    let generations = files_in(&w.join("_clientele/generations"), ".json");
    let newest = generations.last().unwrap();
    let text = std::fs::read_to_string(newest).unwrap();
    std::fs::write(newest, text.replace("\"version\":1", "\"version\":0")).unwrap();
    let refused = run(&count);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("of the publish log is damaged"));
    // One that is gone would make the state before it look like the newest.
    std::fs::remove_file(newest).unwrap();
    let refused = run(&count);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("of the publish log is missing"));
    std::fs::write(newest, text).unwrap();
    assert_eq!(run_well(&count), "n\n10000\n");
}
