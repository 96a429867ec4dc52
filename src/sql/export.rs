//! Results as files for other systems: CSV, JSON lines or Parquet below a folder of `export.roots`.

use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use arrow::array::RecordBatch;
use chrono::NaiveDate;
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;

use super::execute::{Planned, plan};
use super::lines::{csv_value, json_member};
use super::{OutputColumn, output_columns};
use crate::config::Config;
use crate::dialect::parse_query;
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use clientele_udfs::pg::text::TextColumn;

/// What stands for the day of a run in a path.
const AS_OF: &str = "{as_of}";

/// Form of a file, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Csv,
    Json,
    Parquet,
}

impl Form {
    fn of(path: &str) -> Option<Self> {
        match Path::new(path).extension()?.to_str()?.to_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Refuses a path that may not be written, or whose form is not known.
pub(super) fn check(config: &Config, path: &str) -> Result<()> {
    if Form::of(path).is_none() {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("EXPORT TO '{path}': the name ends in none of .csv, .json, .jsonl, .parquet"),
        ));
    }
    let plain = path.replace(AS_OF, "");
    if plain.contains(['{', '}']) {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("EXPORT TO '{path}': only {AS_OF} is replaced, by the day of the run"),
        ));
    }
    resolve(config, path).map(|_| ())
}

/// Where a path lies: below a folder of `export.roots`, which a relative one begins in.
fn resolve(config: &Config, path: &str) -> Result<PathBuf> {
    let refused = || {
        let error = Error::new(Kind::NotAllowed, "a report may not write that file");
        match config.export.roots.is_empty() {
            true => error
                .detail("export.roots in clientele.toml lists no folder")
                .hint("COPY ... TO STDOUT, or \\copy in psql, writes on the client's side"),
            false => error.detail("it is not below a folder of export.roots in clientele.toml"),
        }
    };
    let Some(first) = config.export.roots.first() else { return Err(refused()) };
    let wanted = if Path::new(path).is_absolute() { PathBuf::from(path) } else { first.join(path) };
    let is_plain = |path: &Path| !path.components().any(|part| part == Component::ParentDir);
    let is_missing = wanted.parent().is_some_and(|folder| !folder.exists() && is_plain(folder));
    if is_missing && config.export.roots.iter().any(|root| wanted.starts_with(root)) {
        return Err(Error::new(Kind::Io, format!("the folder of '{path}' is not there"))
            .hint("make it, or mount it; it is not made by itself"));
    }
    // The folder has to be there: links and dots are resolved before it is compared.
    let folder = wanted.parent().and_then(|folder| folder.canonicalize().ok());
    let (Some(folder), Some(name)) = (folder, wanted.file_name()) else { return Err(refused()) };
    let is_below = |root: &PathBuf| root.canonicalize().is_ok_and(|root| folder.starts_with(root));
    match config.export.roots.iter().any(is_below) {
        true => Ok(folder.join(name)),
        false => Err(refused()),
    }
}

/// A file that is written and not yet there under its name.
pub(super) struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
    shown: String,
}

impl Prepared {
    /// Its name, as the report has it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Gives it its name, in one moment.
    pub(super) fn publish(self) -> Result<()> {
        Ok(std::fs::rename(&self.temporary, &self.path)?)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Gone already where it has its name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Writes rows, those of `sql`, into a file beside `path`, in which `{as_of}` is the day of the run.
pub(super) async fn prepare(
    session: &Session,
    path: &str,
    sql: &str,
    as_of: NaiveDate,
) -> Result<Prepared> {
    let shown = path.replace(AS_OF, &as_of.to_string());
    let form = Form::of(&shown).ok_or_else(|| Error::internal("an export has a form"))?;
    let path = resolve(session.engine().config(), &shown)?;
    if path.is_dir() {
        return Err(Error::new(Kind::NotAllowed, format!("EXPORT TO '{shown}': that is a folder")));
    }
    let name = format!(".{}.part", uuid::Uuid::new_v4().simple());
    let temporary = path.with_file_name(name);
    let prepared = Prepared { temporary: temporary.clone(), path, shown };
    let query = ast::Statement::Query(Box::new(parse_query(sql)?));
    let Planned { plan, planning, .. } = plan(session, query, sql, &[]).await?;
    let mut stream = planning.run(&plan).await?;
    let columns = output_columns(&stream.schema());
    let file = std::fs::File::create(&temporary)?;
    let synced = file.try_clone()?;
    let mut writer = match form {
        Form::Parquet => {
            Writer::Parquet(Box::new(ArrowWriter::try_new(file, stream.schema(), None)?))
        }
        Form::Csv | Form::Json => {
            let zone: Tz = session.settings().timezone().parse().unwrap_or(Tz::UTC);
            Writer::Text(BufWriter::new(file), form, zone)
        }
    };
    writer.begin(&columns)?;
    while let Some(batch) = stream.next().await {
        writer.rows(&batch?, &columns)?;
    }
    writer.end()?;
    synced.sync_all()?;
    Ok(prepared)
}

enum Writer {
    Parquet(Box<ArrowWriter<std::fs::File>>),
    Text(BufWriter<std::fs::File>, Form, Tz),
}

impl Writer {
    fn begin(&mut self, columns: &[OutputColumn]) -> Result<()> {
        if let Self::Text(out, Form::Csv, _) = self {
            let names: Vec<String> = columns.iter().map(|column| csv_value(&column.name)).collect();
            writeln!(out, "{}", names.join(","))?;
        }
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, columns: &[OutputColumn]) -> Result<()> {
        let (out, form, zone) = match self {
            Self::Parquet(writer) => return Ok(writer.write(batch)?),
            Self::Text(out, form, zone) => (out, *form, *zone),
        };
        let texts = batch.columns().iter().map(|column| Ok(TextColumn::new(column, zone)?));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            let mut values = Vec::with_capacity(texts.len());
            for (value, column) in texts.iter().zip(columns) {
                text.clear();
                let is_null = value.is_null(row);
                if !is_null {
                    value.write(row, &mut text);
                }
                let known = (!is_null).then_some(text.as_str());
                values.push(match form {
                    Form::Csv => known.map(csv_value).unwrap_or_default(),
                    _ => json_member(column, known),
                });
            }
            match form {
                Form::Csv => writeln!(out, "{}", values.join(","))?,
                _ => writeln!(out, "{{{}}}", values.join(","))?,
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Parquet(writer) => writer.close().map(|_| ())?,
            Self::Text(mut out, ..) => out.flush()?,
        }
        Ok(())
    }
}
