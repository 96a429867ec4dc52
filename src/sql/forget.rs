//! `FORGET CUSTOMER 4711 OF customer`: a person goes, under all of their records: rows, identity, and what reports say of them.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::StreamExt;

use super::Outcome;
use super::erase::{Erase, erase_records};
use super::execute::execute;
use super::refresh::{Left, without_rows};
use super::statement::{Words, parse, syntax};
use crate::dialect::quoted;
use crate::error::{Error, Kind, Result};
use crate::identity;
use crate::report::definitions;
use crate::session::Session;
use crate::store::{ErasedValues, Group, Name, Replaced, TableChange, TableDef};

const FORM: &str = "FORGET CUSTOMER one_id | (query of one one_id) OF graph [REASON 'text'] [NOW]";

/// Who goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Forget {
    /// A number, or a query that gives it.
    one_id: String,
    graph: String,
    reason: Option<String>,
    is_now: bool,
}

impl std::fmt::Debug for Forget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whom it is about is in no log.
        f.debug_struct("Forget").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// Reads FORGET CUSTOMER.
pub(super) fn read(words: &Words) -> Result<Forget> {
    let (one_id, mut at) = match words.token(2) {
        Some(Token::Number(digits, _)) => (digits.clone(), 3),
        Some(Token::LParen) => match words.closing(2) {
            Some(end) => (words.spelled(2, end + 1), end + 1),
            None => return Err(syntax(words, 2, FORM)),
        },
        _ => return Err(syntax(words, 1, FORM)),
    };
    let is_form = words.peek_upper(1) == "CUSTOMER"
        && words.peek_upper(at) == "OF"
        && matches!(words.token(at + 1), Some(Token::Word(_)));
    if !is_form {
        return Err(syntax(words, at, FORM));
    }
    let mut forget = Forget { one_id, graph: words.peek_text(at + 1), reason: None, is_now: false };
    at += 2;
    if let ("REASON", Some(Token::SingleQuotedString(text))) =
        (words.peek_upper(at).as_str(), words.token(at + 1))
    {
        forget.reason = Some(text.clone());
        at += 2;
    }
    if words.peek_upper(at) == "NOW" {
        forget.is_now = true;
        at += 1;
    }
    match words.token(at) {
        None => Ok(forget),
        Some(_) => Err(syntax(words, at, FORM)),
    }
}

/// Finds the customer's records, erases them, computes the graph anew and takes the customer out of reports and audiences.
///
/// Each step can be done again: a statement that was broken off is finished by the same statement, as long as the graph still knows the
/// customer, and after that by `ERASE RECORD` having hidden the records already.
///
/// # Errors
/// 42704 when there is no such graph, or no such customer in it.
pub(super) async fn run(session: &Session, forget: &Forget) -> Result<Outcome> {
    let engine = session.engine();
    identity::must_exist(engine.warehouse().newest().await?.as_ref(), &forget.graph)?;
    let ids = customers(session, forget).await?;
    let [one_id] = ids.as_slice() else {
        return Err(Error::new(
            Kind::UndefinedObject,
            format!("{} customers are named, one can be forgotten at a time", ids.len()),
        )
        .hint(FORM));
    };
    let records = records_of(session, &forget.graph, *one_id).await?;
    if records.is_empty() {
        return Err(Error::new(
            Kind::UndefinedObject,
            format!("the graph \"{}\" has no such customer", forget.graph),
        )
        .hint("a one_id of its map; its alias says which id has taken the place of another"));
    }
    let count = records.len();
    // First the reports: while the graph knows the customer, this statement can begin again.
    let before = leave_reports(session, *one_id).await?;
    let erase = Erase { records, reason: forget.reason.clone(), is_now: false };
    let (told, _) = erase_records(engine, &erase, session.user()).await?;
    for parsed in parse(&format!("REFRESH IDENTITY GRAPH {}", quoted(&forget.graph)))? {
        Box::pin(execute(session, &parsed, &[])).await?;
    }
    // A run that began in between had read the graph of before.
    let after = leave_reports(session, *one_id).await?;
    let reports: BTreeSet<&Name> = before.reports.iter().chain(&after.reports).collect();
    let mut told = format!(
        "{count} records; {told}; {} rows taken out of {} reports",
        before.rows + after.rows,
        reports.len()
    );
    let exports: BTreeSet<&str> =
        before.exports.iter().chain(&after.exports).map(String::as_str).collect();
    if !exports.is_empty() {
        let exports = exports.into_iter().collect::<Vec<_>>().join(", ");
        told.push_str(&format!("; files that these reports exported still have them: {exports}"));
    }
    told.push_str("; CHECK ERASED looks for what else is said of them");
    if forget.is_now {
        let done = engine.warehouse().vacuum(None, std::time::Duration::ZERO).await?;
        told.push_str(&format!("; {}", super::erase::described(&done)));
    }
    Ok(Outcome::Noticed { tag: "FORGET CUSTOMER".to_owned(), notice: told })
}

/// The batches of a query.
async fn rows(session: &Session, sql: &str) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for parsed in parse(sql)? {
        let Outcome::Rows { mut stream, .. } = Box::pin(execute(session, &parsed, &[])).await?
        else {
            return Err(Error::internal("a query gives rows"));
        };
        while let Some(batch) = stream.next().await {
            batches.push(batch?);
        }
    }
    Ok(batches)
}

/// The ids that the statement names.
async fn customers(session: &Session, forget: &Forget) -> Result<Vec<i64>> {
    let given = match forget.one_id.starts_with('(') {
        true => forget.one_id.clone(),
        false => format!("(SELECT {})", forget.one_id),
    };
    let sql = format!("SELECT DISTINCT CAST(one_id AS BIGINT) FROM {given} AS named (one_id)");
    let mut ids = Vec::new();
    for batch in rows(session, &sql).await.map_err(|error| error.at(None))? {
        ids.extend(batch.column(0).as_primitive::<Int64Type>().iter().flatten());
    }
    Ok(ids)
}

/// Source and id of each record of the customer.
async fn records_of(session: &Session, graph: &str, one_id: i64) -> Result<Vec<(String, String)>> {
    let sql =
        format!("SELECT source, record_id FROM {}.map WHERE one_id = {one_id}", quoted(graph));
    let mut records = Vec::new();
    for batch in rows(session, &sql).await? {
        let text = |at: usize| cast(batch.column(at), &DataType::Utf8);
        let (sources, ids) = (text(0)?, text(1)?);
        let pairs = sources.as_string::<i32>().iter().zip(ids.as_string::<i32>());
        let known =
            |(source, id): (Option<&str>, Option<&str>)| Some((source?.to_owned(), id?.to_owned()));
        records.extend(pairs.filter_map(known));
    }
    Ok(records)
}

/// What a customer was taken out of.
#[derive(Default)]
struct Gone {
    reports: BTreeSet<Name>,
    rows: usize,
    /// Files that those of the reports write which write some.
    exports: BTreeSet<String>,
}

/// Takes the customer out of every report and audience whose rows name them, by their id or by what they were known by.
async fn leave_reports(session: &Session, one_id: i64) -> Result<Gone> {
    const TRIES_MAX: u32 = 5;
    let warehouse = session.engine().warehouse();
    let values = warehouse.erased_values(warehouse.newest().await?.as_ref()).await?;
    let mut all = Gone::default();
    for (name, report) in definitions(warehouse.newest().await?.as_ref())? {
        // A run that is under way would bring the customer back.
        let _place = session.engine().runs().enter(&name, chrono::NaiveDate::MIN).await;
        for attempt in 1..=TRIES_MAX {
            let newest = warehouse.newest().await?;
            let Some(def) = newest.table(&name).cloned() else { break };
            match leave(session, &name, &def, (one_id, &values)).await {
                Ok(0) => break,
                Ok(gone) => {
                    all.rows += gone;
                    all.exports.extend(report.export);
                    all.reports.insert(name);
                    break;
                }
                Err(error) if error.kind() == Kind::StaleBase && attempt < TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(all)
}

/// Writes the files of a report's table anew that have rows of the customer, without them.
async fn leave(
    session: &Session,
    name: &Name,
    def: &TableDef,
    (one_id, values): (i64, &ErasedValues),
) -> Result<usize> {
    let warehouse = session.engine().warehouse();
    let snapshot = warehouse.snapshot(def).await?;
    let fields = snapshot.schema.fields().iter().enumerate();
    let ids: Vec<usize> = { fields.clone() }
        .filter(|(_, field)| field.name() == "one_id" && field.data_type().is_integer())
        .map(|(at, _)| at)
        .collect();
    let has_texts = |data_type: &DataType| match data_type {
        DataType::List(item) => item.data_type().is_string(),
        other => other.is_string(),
    };
    let texts: Vec<usize> = fields
        .filter(|(_, field)| has_texts(field.data_type()) && !values.is_empty())
        .map(|(at, _)| at)
        .collect();
    if ids.is_empty() && texts.is_empty() {
        return Ok(0);
    }
    let stays = |batch: &RecordBatch| -> Result<BooleanArray> {
        let mut stays = vec![true; batch.num_rows()];
        for at in &ids {
            let ids = cast(batch.column(*at), &DataType::Int64)?;
            for (stays, id) in stays.iter_mut().zip(ids.as_primitive::<Int64Type>()) {
                *stays &= id != Some(one_id);
            }
        }
        for at in &texts {
            let names = |texts: &ArrayRef| -> Result<Vec<bool>> {
                let texts = cast(texts, &DataType::Utf8View)?;
                let texts = texts.as_string_view().iter();
                Ok(texts.map(|t| t.is_some_and(|text| values.names_a_person(text))).collect())
            };
            let column = batch.column(*at);
            let named: Vec<bool> = match column.as_list_opt::<i32>() {
                None => names(column)?,
                Some(lists) => {
                    let named = names(lists.values())?;
                    let within =
                        |ends: &[i32]| named[ends[0] as usize..ends[1] as usize].contains(&true);
                    lists.offsets().windows(2).map(within).collect()
                }
            };
            for (stays, named) in stays.iter_mut().zip(named) {
                *stays &= !named;
            }
        }
        Ok(BooleanArray::from(stays))
    };
    let left = without_rows(session.engine(), &snapshot, |_| true, stays).await?;
    let Left { gone: files, files: written, rows } = left;
    if files.is_empty() {
        return Ok(0);
    }
    let mut change = TableChange::append(name.clone(), def.path.clone(), written.clone());
    change.replaced = Some(Replaced { version: def.version, files });
    let group = Group::of(change);
    match warehouse.publish(group).await {
        Ok(_) => Ok(rows),
        Err(error) => {
            // Of any other failure it is not known whether the files are in a log by now.
            if error.kind() == Kind::StaleBase {
                warehouse.discard(&def.path, &written).await;
            }
            Err(error)
        }
    }
}
