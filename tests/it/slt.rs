//! Every file below tests/slt and every example in docs, through the simple and the extended protocol.
//!
//! ```text
//! statement ok            the statement succeeds
//! statement error (CODE)  it fails with this SQLSTATE
//! query TYPES             rows, one a line, values separated by two blanks; T text, I whole number, R other number, B boolean,
//! SELECT ...              D date or time, A array; NULL is written NULL, an empty text (empty)
//! ----
//! rows
//! ```

use std::path::{Path, PathBuf};

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::server::{Server, code};

#[derive(Debug)]
struct Record {
    line: usize,
    sql: String,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    Ok,
    Error(String),
    Rows { types: String, rows: Vec<String> },
}

/// The text of a test file; of a page of documentation, the examples: blocks fenced as slt.
fn text_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    if path.extension().is_some_and(|e| e == "slt") {
        return text;
    }
    let mut is_example = false;
    let keep = |line: &str| {
        if line.starts_with("```") {
            is_example = line == "```slt";
            return String::new();
        }
        if is_example { line.to_owned() } else { String::new() }
    };
    text.lines().map(keep).collect::<Vec<_>>().join("\n")
}

fn parse(path: &Path) -> Vec<Record> {
    let text = text_of(path);
    let mut records = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let head = lines[at];
        let line = at + 1;
        at += 1;
        if head.trim().is_empty() || head.starts_with('#') {
            continue;
        }
        let mut block = Vec::new();
        while at < lines.len() && !lines[at].trim().is_empty() {
            block.push(lines[at]);
            at += 1;
        }
        let split = block.iter().position(|l| *l == "----");
        let sql = block[..split.unwrap_or(block.len())].join("\n");
        let words: Vec<&str> = head.split_whitespace().collect();
        let expected = match words.as_slice() {
            ["statement", "ok"] => Expected::Ok,
            ["statement" | "query", "error", code] => {
                Expected::Error(code.trim_matches(['(', ')']).to_owned())
            }
            ["query", types] => {
                let rows = block[split.expect("a query has ----") + 1..]
                    .iter()
                    .map(|l| (*l).to_owned())
                    .collect();
                Expected::Rows { types: (*types).to_owned(), rows }
            }
            _ => panic!("{}:{line}: {head:?} is not understood", path.display()),
        };
        records.push(Record { line, sql, expected });
    }
    records
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    }
}

async fn simple(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| shown(row.get(i))).collect::<Vec<_>>().join("  "))
        }
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}

/// A value of the binary format, written as its text; types that Rust has no value for are only counted.
struct Shown(String);

impl<'a> FromSql<'a> for Shown {
    fn from_sql(
        ty: &Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let text = match *ty {
            Type::BOOL => if bool::from_sql(ty, raw)? { "t" } else { "f" }.to_owned(),
            Type::INT2 => i16::from_sql(ty, raw)?.to_string(),
            Type::INT4 => i32::from_sql(ty, raw)?.to_string(),
            Type::INT8 => i64::from_sql(ty, raw)?.to_string(),
            Type::TEXT | Type::VARCHAR | Type::NAME => String::from_sql(ty, raw)?,
            Type::DATE => chrono::NaiveDate::from_sql(ty, raw)?.to_string(),
            Type::INT2_ARRAY => {
                let numbers = Vec::<i16>::from_sql(ty, raw)?;
                format!(
                    "{{{}}}",
                    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
                )
            }
            _ => return Ok(Self("*".to_owned())),
        };
        Ok(Self(text))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

async fn extended(
    client: &Client,
    sql: &str,
) -> Result<(String, Vec<Vec<String>>), tokio_postgres::Error> {
    let statement = client.prepare(sql).await?;
    let types = statement.columns().iter().map(|c| letter(c.type_())).collect();
    let rows = client.query(&statement, &[]).await?;
    let row = |row: &tokio_postgres::Row| {
        (0..row.len())
            .map(|i| {
                row.get::<_, Option<Shown>>(i).map_or("NULL".to_owned(), |s| shown(Some(&s.0)))
            })
            .collect()
    };
    Ok((types, rows.iter().map(row).collect()))
}

fn letter(ty: &Type) -> char {
    match *ty {
        Type::BOOL => 'B',
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => 'I',
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => 'R',
        Type::DATE | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME | Type::INTERVAL => 'D',
        ref ty if ty.name().starts_with('_') => 'A',
        _ => 'T',
    }
}

async fn check(client: &Client, path: &Path, record: &Record, is_extended: bool) -> Option<String> {
    let place = format!(
        "{}:{} ({})",
        path.display(),
        record.line,
        if is_extended { "extended" } else { "simple" }
    );
    let failed = |error: &tokio_postgres::Error| match error.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => error.to_string(),
    };
    if is_extended {
        return match (extended(client, &record.sql).await, &record.expected) {
            (Ok(_), Expected::Ok) => None,
            (Err(error), Expected::Error(wanted)) if code(&error) == wanted => None,
            (Ok((found_types, found)), Expected::Rows { types, rows }) => {
                let found: Vec<Vec<String>> = found;
                let same = found.len() == rows.len()
                    && found.iter().zip(rows).all(|(found, row)| {
                        let wanted: Vec<&str> = row.split("  ").collect();
                        found.len() == wanted.len()
                            && found.iter().zip(wanted).all(|(f, w)| f == "*" || f == w)
                    });
                let fits = *types == found_types && same;
                (!fits).then(|| format!("{place}\n  types {found_types}, rows {found:#?}"))
            }
            (Ok(_), Expected::Error(wanted)) => {
                Some(format!("{place}\n  succeeded, {wanted} was expected"))
            }
            (Err(error), _) => Some(format!("{place}\n  {}", failed(&error))),
        };
    }
    match (simple(client, &record.sql).await, &record.expected) {
        (Ok(_), Expected::Ok) => None,
        (Err(error), Expected::Error(wanted)) if code(&error) == wanted => None,
        (Ok(found), Expected::Rows { rows, .. }) if found == *rows => None,
        (Ok(found), Expected::Rows { .. }) => {
            Some(format!("{place}\n  found\n{}", found.join("\n")))
        }
        (Ok(_), Expected::Error(wanted)) => {
            Some(format!("{place}\n  succeeded, {wanted} was expected"))
        }
        (Err(error), _) => Some(format!("{place}\n  {}", failed(&error))),
    }
}

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for (folder, extension) in [("tests/slt", "slt"), ("docs", "md")] {
        let found = std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path());
        files.extend(found.filter(|f| f.extension().is_some_and(|e| e == extension)));
    }
    files.sort();
    files
}

/// Each file runs twice, each time against a server and a warehouse of its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_file_holds_in_both_protocols() {
    let only = std::env::var("SLT").ok();
    let mut problems = Vec::new();
    let mut checked = 0;
    for path in files() {
        if only.as_ref().is_some_and(|only| !path.to_string_lossy().contains(only.as_str())) {
            continue;
        }
        let records = parse(&path);
        for is_extended in [false, true] {
            let server = Server::start();
            let client = server.connect().await;
            for record in &records {
                checked += 1;
                problems.extend(check(&client, &path, record, is_extended).await);
            }
        }
    }
    assert!(checked > 0, "no file was run");
    assert!(
        problems.is_empty(),
        "{} of {checked} records differ\n{}",
        problems.len(),
        problems.join("\n")
    );
}
