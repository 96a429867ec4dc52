//! `ERASE RECORD ('shop', '17')`: a person's rows go, for good; `CHECK ERASED` shows that nothing is left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::statement::{Words, syntax};
use super::{Outcome, OutputColumn, answer, output_columns};
use crate::error::{Error, Kind, Result};
use crate::session::{Engine, Session};
use crate::store::{ErasedCheck, Name, Vacuumed};

const FORM: &str = "ERASE RECORD ('source', 'record_id'), ... [REASON 'text'] [NOW]";

/// Whose rows go.
#[derive(Clone, PartialEq, Eq)]
pub struct Erase {
    /// Source and record id of each.
    pub records: Vec<(String, String)>,
    /// Why, for the list of erasures.
    pub reason: Option<String>,
    /// Whether past versions go at once too, without the time of grace.
    pub is_now: bool,
}

impl std::fmt::Debug for Erase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whom it is about is in no log.
        f.debug_struct("Erase").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

pub(super) fn parse(words: &Words) -> Result<Erase> {
    if !["RECORD", "RECORDS"].contains(&words.peek_upper(1).as_str()) {
        return Err(syntax(words, 1, FORM));
    }
    let mut erase = Erase { records: Vec::new(), reason: None, is_now: false };
    let mut at = 2;
    loop {
        let is_text = |at: usize| match words.token(at) {
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => {
                Some(text.clone())
            }
            _ => None,
        };
        let is_pair = words.peek_upper(at) == "("
            && words.peek_upper(at + 2) == ","
            && words.peek_upper(at + 4) == ")";
        match (is_pair, is_text(at + 1), is_text(at + 3)) {
            (true, Some(source), Some(record)) => erase.records.push((source, record)),
            _ => return Err(syntax(words, at, FORM)),
        }
        at += 5;
        if words.peek_upper(at) != "," {
            break;
        }
        at += 1;
    }
    if words.peek_upper(at) == "REASON" {
        match words.token(at + 1) {
            Some(Token::SingleQuotedString(text)) => erase.reason = Some(text.clone()),
            _ => return Err(syntax(words, at, FORM)),
        }
        at += 2;
    }
    if words.peek_upper(at) == "NOW" {
        erase.is_now = true;
        at += 1;
    }
    match words.token(at) {
        None => Ok(erase),
        Some(_) => Err(syntax(words, at, FORM)),
    }
}

pub(super) async fn run(session: &Session, erase: &Erase) -> Result<Outcome> {
    let (told, _) = erase_records(session.engine(), erase, session.user()).await?;
    Ok(Outcome::Noticed { tag: format!("ERASE {}", erase.records.len()), notice: told })
}

/// Hides the records, takes their rows out of the tables and says what was done, and whether past versions are gone where that was
/// asked for.
pub async fn erase_records(engine: &Engine, erase: &Erase, user: &str) -> Result<(String, bool)> {
    if erase.records.iter().any(|(source, record)| source.is_empty() || record.is_empty()) {
        return Err(Error::new(Kind::InvalidParameter, "a record has a source and an id")
            .hint("as in the columns source and record_id of the tables"));
    }
    let warehouse = engine.warehouse();
    let erasure = warehouse.erase(&erase.records, user, erase.reason.as_deref()).await?;
    let purged = warehouse.purge(None).await.map_err(|error| {
        error.about("the records are hidden from now on, but not everywhere taken out yet: the next ERASE, COMPACT or upkeep goes on")
    })?;
    let mut told = match &erasure.id {
        Some(id) => format!(
            "erasure {id}: {} records hidden, {} rows taken out of {} tables",
            erasure.records, purged.rows, purged.tables
        ),
        None => "these records were erased before".to_owned(),
    };
    if erasure.id.is_some() && purged.rows == 0 {
        told.push_str("; no table has rows of them: if there should be some, look at their source and record_id");
    }
    let newest = warehouse.newest().await?;
    let is_computed = |name: &Name| newest.is_report(name) || newest.is_of_graph(name);
    if erasure.id.is_some() && newest.relations.keys().any(is_computed) {
        told.push_str("; reports, audiences and graphs know of it when they are computed again, FORGET CUSTOMER takes somebody out of them at once");
    }
    let keep = if erase.is_now { Duration::ZERO } else { engine.config().storage.keep() };
    let mut is_done = true;
    if keep.is_zero() {
        let vacuumed = warehouse.vacuum(None, keep).await?;
        is_done = !vacuumed.is_held_back;
        told.push_str(&format!("; {}", described(&vacuumed)));
    } else {
        told.push_str(&format!(
            "; versions from before keep them for {} days (storage.keep_days)",
            engine.config().storage.keep_days
        ));
    }
    Ok((told, is_done))
}

/// What a vacuum did, in words.
pub fn described(done: &Vacuumed) -> String {
    let held = match done.is_held_back {
        true => "; a statement still reads older versions, they go with the next VACUUM",
        false => "",
    };
    format!(
        "{} files of {} bytes, {} log entries and {} dropped tables are gone{held}",
        done.files, done.bytes, done.log_entries, done.folders
    )
}

fn schema() -> SchemaRef {
    let column = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        column("file", DataType::Utf8),
        column("part", DataType::Utf8),
        column("what", DataType::Utf8),
        column("hits", DataType::Int64),
        column("state", DataType::Utf8),
        column("certificate", DataType::Utf8),
    ]))
}

/// Columns of CHECK ERASED's answer.
pub(super) fn columns() -> Vec<OutputColumn> {
    output_columns(&schema())
}

/// A row a finding, and one with the verdict.
pub(super) async fn check(session: &Session) -> Result<Outcome> {
    let check = check_erased(session.engine(), session.user()).await?;
    let mut rows: Vec<[Option<String>; 5]> = Vec::new();
    for residue in &check.found {
        rows.push([
            Some(residue.file.clone()),
            Some(residue.part.clone()),
            Some(residue.what.clone()),
            Some(residue.state().to_owned()),
            None,
        ]);
    }
    let all = format!("{} files, {} bytes decoded", check.files, check.bytes);
    let looked = format!("{} records, {} values", check.records, check.values);
    let verdict = Some(check.verdict().to_owned());
    rows.push([Some("all".to_owned()), Some(all), Some(looked), verdict, Some(check.id.clone())]);
    let hits = check.found.iter().map(|residue| i64::try_from(residue.hits).ok());
    let total: u64 = check.found.iter().map(|residue| residue.hits).sum();
    let hits: Int64Array = hits.chain([i64::try_from(total).ok()]).collect();
    let text =
        |at: usize| Arc::new(rows.iter().map(|row| row[at].clone()).collect::<StringArray>());
    let batch = RecordBatch::try_new(
        schema(),
        vec![text(0), text(1), text(2), Arc::new(hits), text(3), text(4)],
    )?;
    Ok(answer(batch, "CHECK"))
}

/// Looks for what is left of erased people, in the warehouse and among spill files.
pub async fn check_erased(engine: &Engine, user: &str) -> Result<ErasedCheck> {
    engine.warehouse().check_erased(user, &spill_folders(engine)).await
}

/// Folders in which queries of this machine put what does not fit into memory.
fn spill_folders(engine: &Engine) -> Vec<PathBuf> {
    let (dir, is_ours) = match &engine.config().memory.spill_dir {
        Some(dir) => (dir.clone(), true),
        None => (std::env::temp_dir(), false),
    };
    if is_ours {
        return vec![dir];
    }
    // The engine's own folders among everything else that is temporary.
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_engines =
        |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("datafusion-");
    entries.filter(is_engines).map(|entry| entry.path()).collect()
}
