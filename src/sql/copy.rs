//! COPY, read by our own grammar: the engine's parser knows only its own form.

use super::execute::full_name;
use super::statement::Words;
use crate::config::MaxBad;
use crate::error::{Error, Kind, Result};
use crate::ingest::{CopyFormat, CsvOptions, Key};
use crate::store::Name;

/// A COPY statement.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyStatement {
    /// What is copied.
    pub source: CopySource,
    /// From or to where.
    pub target: CopyTarget,
    /// How values are written.
    pub format: CopyFormat,
    /// How many bad rows are allowed, when it was said.
    pub max_bad: Option<MaxBad>,
    /// What tells rows apart, when one that comes again takes the place of the one from before.
    pub key: Option<Key>,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq)]
pub enum CopySource {
    /// A table, all columns or some.
    Table(Name, Option<Vec<String>>),
    /// The rows of a query, as its text.
    Query(String),
}

/// From or to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyTarget {
    /// FROM STDIN.
    Stdin,
    /// TO STDOUT.
    Stdout,
    /// FROM 'path'.
    FromPath(String),
    /// TO 'path'.
    ToPath(String),
}

/// Options as they were written.
#[derive(Default)]
struct Options {
    is_csv: bool,
    is_binary: bool,
    delimiter: Option<u8>,
    null: Option<String>,
    has_header: bool,
    quote: Option<u8>,
    escape: Option<u8>,
    max_bad: Option<MaxBad>,
    key: Vec<String>,
    latest: Option<String>,
}

/// Reads a COPY statement from its words.
pub(super) fn parse(words: &Words) -> Result<CopyStatement> {
    let unexpected = |at: usize, wanted: &str| unexpected(words, at, wanted);
    let mut at = 1;
    let source = if words.peek_upper(at) == "(" {
        let end = words.closing(at).ok_or_else(|| unexpected(words.len(), "a closing bracket"))?;
        let query = words.spelled(at + 1, end);
        at = end + 1;
        CopySource::Query(query)
    } else {
        let mut name = vec![words.peek_text(at)];
        at += 1;
        while words.peek_upper(at) == "." {
            name.push(words.peek_text(at + 1));
            at += 2;
        }
        let columns = if words.peek_upper(at) == "(" {
            let end =
                words.closing(at).ok_or_else(|| unexpected(words.len(), "a closing bracket"))?;
            let columns = (at + 1..end)
                .filter(|i| words.peek_upper(*i) != ",")
                .map(|i| words.peek_text(i))
                .collect();
            at = end + 1;
            Some(columns)
        } else {
            None
        };
        CopySource::Table(full_name(name)?, columns)
    };
    let direction = words.peek_upper(at);
    let place = words.peek_upper(at + 1);
    let target = match (direction.as_str(), place.as_str()) {
        ("FROM", "STDIN") => CopyTarget::Stdin,
        ("TO", "STDOUT") => CopyTarget::Stdout,
        ("FROM" | "TO", "PROGRAM") => {
            return Err(Error::new(Kind::NotAllowed, "COPY never runs a program"));
        }
        ("FROM", "") => CopyTarget::FromPath(words.peek_text(at + 1)),
        ("TO", "") => CopyTarget::ToPath(words.peek_text(at + 1)),
        ("FROM" | "TO", _) => return Err(unexpected(at + 1, "STDIN, STDOUT or a path in quotes")),
        _ => return Err(unexpected(at, "FROM or TO")),
    };
    let options = parse_options(words, at + 2)?;
    if options.is_binary {
        return Err(
            Error::not_supported("COPY in binary format is not supported").hint("use text or csv")
        );
    }
    let goes_in = matches!(target, CopyTarget::Stdin | CopyTarget::FromPath(_));
    if options.latest.is_some() && options.key.is_empty() || !options.key.is_empty() && !goes_in {
        return Err(Error::new(
            Kind::Syntax,
            "syntax error in COPY: KEY is for rows that come in, and LATEST belongs to a KEY",
        ));
    }
    let key = (!options.key.is_empty())
        .then(|| Key { columns: options.key.clone(), latest: options.latest.clone() });
    let max_bad = options.max_bad;
    Ok(CopyStatement { source, target, max_bad, key, format: options.format() })
}

fn unexpected(words: &Words, at: usize, wanted: &str) -> Error {
    Error::new(Kind::Syntax, format!("syntax error in COPY: {wanted} expected")).at(words.place(at))
}

impl Options {
    fn format(self) -> CopyFormat {
        if self.is_csv {
            CopyFormat::Csv(CsvOptions {
                delimiter: self.delimiter,
                quote: self.quote.unwrap_or(b'"'),
                escape: self.escape,
                null: self.null.unwrap_or_default(),
                has_header: self.has_header,
                has_end_mark: true,
            })
        } else {
            CopyFormat::Text {
                delimiter: self.delimiter.unwrap_or(b'\t'),
                null: self.null.unwrap_or_else(|| "\\N".to_owned()),
                has_header: self.has_header,
            }
        }
    }
}

/// Both forms: `WITH (FORMAT csv, HEADER)` and the old `WITH CSV HEADER DELIMITER ','`.
fn parse_options(words: &Words, from: usize) -> Result<Options> {
    let mut options = Options::default();
    let mut at = from;
    while at < words.len() {
        let word = words.peek_upper(at);
        let value = words.peek_text(at + 1);
        let mut used = 2;
        match word.as_str() {
            "WITH" | "(" | ")" | "," | "AS" => used = 1,
            "FORMAT" => match value.as_str() {
                "csv" => options.is_csv = true,
                "text" => {}
                "binary" => options.is_binary = true,
                other => {
                    return Err(Error::new(
                        Kind::InvalidParameter,
                        format!("COPY format \"{other}\" is not known"),
                    ));
                }
            },
            "CSV" => {
                options.is_csv = true;
                used = 1;
            }
            "BINARY" => {
                options.is_binary = true;
                used = 1;
            }
            "HEADER" => {
                let is_said = ["TRUE", "FALSE", "ON", "OFF", "MATCH", "1", "0"]
                    .contains(&words.peek_upper(at + 1).as_str());
                options.has_header = !is_said || !["false", "off", "0"].contains(&value.as_str());
                used = if is_said { 2 } else { 1 };
            }
            "DELIMITER" | "DELIMITERS" => {
                let (text, n) = option_text(words, at + 1);
                options.delimiter = Some(one_byte("DELIMITER", &text)?);
                used = 1 + n;
            }
            "NULL" => {
                let (text, n) = option_text(words, at + 1);
                options.null = Some(text);
                used = 1 + n;
            }
            "QUOTE" => {
                let (text, n) = option_text(words, at + 1);
                options.quote = Some(one_byte("QUOTE", &text)?);
                used = 1 + n;
            }
            "ESCAPE" => {
                let (text, n) = option_text(words, at + 1);
                options.escape = Some(one_byte("ESCAPE", &text)?);
                used = 1 + n;
            }
            "ENCODING" => {
                if !["utf8", "utf-8", "unicode"].contains(&value.to_lowercase().as_str()) {
                    return Err(Error::not_supported(format!(
                        "encoding {value:?} is not supported; everything is UTF8"
                    )));
                }
            }
            "KEY" if words.peek_upper(at + 1) == "(" => {
                let end = words.closing(at + 1).unwrap_or(words.len());
                let columns = (at + 2..end).filter(|i| words.peek_upper(*i) != ",");
                options.key = columns.map(|i| words.peek_text(i)).collect();
                if options.key.is_empty() {
                    return Err(unexpected(words, at + 2, "a column of the key"));
                }
                used = end + 1 - at;
            }
            "KEY" => options.key = value.split(',').map(|c| c.trim().to_owned()).collect(),
            "LATEST" => options.latest = Some(value),
            "MAX_BAD" => options.max_bad = Some(MaxBad::parse(&value)?),
            _ => {
                return Err(Error::new(
                    Kind::Syntax,
                    format!("syntax error in COPY: option {} is not known", words.peek_text(at)),
                )
                .at(words.place(at))
                .detail(
                    "known are FORMAT, HEADER, DELIMITER, NULL, QUOTE, ESCAPE, ENCODING, MAX_BAD, KEY, LATEST",
                ));
            }
        }
        at += used;
    }
    Ok(options)
}

fn option_text(words: &Words, at: usize) -> (String, usize) {
    if words.peek_upper(at) == "AS" {
        (words.peek_text(at + 1), 2)
    } else {
        (words.peek_text(at), 1)
    }
}

fn one_byte(option: &str, text: &str) -> Result<u8> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        _ => Err(Error::new(
            Kind::InvalidParameter,
            format!("COPY {option} must be a single one-byte character"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statement::{Statement, parse};

    fn copy(sql: &str) -> CopyStatement {
        match parse(sql).unwrap().remove(0).statement {
            Statement::Copy(copy) => *copy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_option_forms_mean_the_same() {
        let new =
            copy("COPY t (a, \"B\") FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', NULL 'x')");
        let old =
            copy("copy public.t(a,\"B\") from stdin with csv header delimiter as ';' null as 'x'");
        assert_eq!(new, old);
        assert_eq!(
            new.source,
            CopySource::Table(Name::new("public", "t"), Some(vec!["a".into(), "B".into()]))
        );
    }

    #[test]
    fn a_key_is_one_column_or_some() {
        let key = |sql: &str| copy(sql).key.unwrap();
        let one = key("COPY t FROM STDIN WITH (FORMAT csv, KEY 'order_id', LATEST changed_at)");
        assert_eq!((one.columns.len(), one.latest.as_deref()), (1, Some("changed_at")));
        let two = key("COPY t FROM STDIN WITH (KEY (source, \"Id\"), FORMAT csv, HEADER)");
        assert_eq!((two.columns, two.latest), (vec!["source".to_owned(), "Id".to_owned()], None));
        assert_eq!(key("COPY t FROM STDIN (KEY 'a, b')").columns, ["a", "b"]);
        for bad in [
            "COPY t TO STDOUT (KEY a)",
            "COPY t FROM STDIN (LATEST a)",
            "COPY t FROM STDIN (KEY ())",
        ] {
            assert_eq!(parse(bad).unwrap_err().sqlstate(), "42601", "{bad}");
        }
        assert_eq!(parse("COPY a.b.t FROM STDIN").unwrap_err().sqlstate(), "0A000");
    }

    #[test]
    fn queries_go_out_and_paths_are_kept() {
        let out = copy("COPY (SELECT (1), ')' FROM t) TO STDOUT");
        assert_eq!(out.source, CopySource::Query("SELECT ( 1 ) , ')' FROM t".into()));
        assert_eq!(copy("COPY t TO '/etc/x'").target, CopyTarget::ToPath("/etc/x".into()));
        assert!(parse("COPY t TO PROGRAM 'rm'").is_err());
    }
}
