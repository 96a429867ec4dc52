//! `SELECT cron.schedule('name', '0 2 * * *', $$VACUUM$$)` and its kin, as pg_cron's users write them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, NullArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use chrono::Utc;
use clientele_tree::{Node, Tree};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Function as CallExpr, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, TableFactor,
};
use futures::StreamExt;

use super::execute::{Planned, plan};
use super::statement::parse;
use super::{Outcome, OutputColumn, answer, output_columns, parameters};
use crate::error::{Error, Kind, Result};
use crate::report::{Job, jobs, last_number, numbered};
use crate::session::Session;
use crate::store::{Change, Generation, Name};

/// A call of one of the functions, for each row of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct CronCall {
    function: Function,
    /// What its column is called.
    column: String,
    /// Gives the arguments, by their names.
    arguments: Statement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    /// `cron.schedule([name,] schedule, command)`: the number of the job.
    Schedule,
    /// `cron.unschedule(name or number)`: whether there was one.
    Unschedule,
    /// `cron.alter_job(number, ...)`: nothing.
    Alter,
}

/// What one call does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    /// One whose name is there already is changed.
    Schedule {
        name: Option<String>,
        schedule: String,
        command: String,
    },
    Unschedule(Wanted),
    Alter {
        id: i64,
        schedule: Option<String>,
        command: Option<String>,
        is_active: Option<bool>,
    },
}

/// Which job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// That of this number.
    Id(i64),
    /// That of this name.
    Name(String),
}

const FORMS: &str = "cron.schedule([name,] schedule, command), cron.unschedule(name or jobid), cron.alter_job(job_id, schedule => , command => , active => )";

fn bad(function: &str, problem: &str) -> Error {
    Error::new(Kind::UndefinedFunction, format!("cron.{function}: {problem}")).hint(FORMS)
}

/// The call that a statement is; `None` for any other statement.
pub(super) fn read(statement: &Statement) -> Result<Option<CronCall>> {
    let Statement::Query(query) = statement else { return Ok(None) };
    let Some((call, alias)) = sole_call(query) else {
        return match named_within(query) {
            None => Ok(None),
            Some(function) => Err(bad(
                &function,
                "a call is all that a SELECT gives: SELECT cron.unschedule(jobid) FROM cron.job",
            )),
        };
    };
    let Some(function) = &function_of(&call.name) else { return Ok(None) };
    let FunctionArguments::List(list) = &call.args else {
        return Err(bad(function, "arguments are missing"));
    };
    let (kind, names): (_, &[&str]) = match (function.as_str(), list.args.len()) {
        ("schedule", 2) => (Function::Schedule, &["schedule", "command"]),
        ("schedule", 3) => (Function::Schedule, &["job_name", "schedule", "command"]),
        ("unschedule", 1) => (Function::Unschedule, &["job"]),
        ("alter_job", 1..=6) => {
            (Function::Alter, &["job_id", "schedule", "command", "database", "username", "active"])
        }
        _ => {
            return Err(bad(function, "there is no such function, or none with so many arguments"));
        }
    };
    let mut projection = Vec::new();
    for (at, arg) in list.args.iter().enumerate() {
        let (name, expr) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (names[at].to_owned(), expr),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                (argument_of(kind, &name.value.to_lowercase()), expr)
            }
            other => return Err(bad(function, &format!("{other} is no value"))),
        };
        if !names.contains(&name.as_str()) {
            return Err(bad(function, &format!("there is no argument \"{name}\"")));
        }
        let data_type = match name.as_str() {
            // A number or a name: what it is tells which.
            "job" => None,
            "job_id" => Some(SqlType::BigInt(None)),
            "active" => Some(SqlType::Boolean),
            _ => Some(SqlType::Text),
        };
        let expr = Box::new(expr.clone());
        let expr = match data_type {
            None => Expr::Nested(expr),
            Some(data_type) => {
                Expr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None }
            }
        };
        projection.push(SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) });
    }
    let column = alias.map_or_else(|| function.clone(), super::names::folded);
    let mut query = query.clone();
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = projection;
    }
    Ok(Some(CronCall { function: kind, column, arguments: Statement::Query(query) }))
}

/// The call that is all that a query gives, and the name of its column.
fn sole_call(query: &Query) -> Option<(&CallExpr, Option<&Ident>)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let (call, alias) = match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(Expr::Function(call))] => (call, None),
        [SelectItem::ExprWithAlias { expr: Expr::Function(call), alias }] => (call, Some(alias)),
        _ => return None,
    };
    function_of(&call.name).map(|_| (call, alias))
}

/// The function of the schema cron that is meant.
fn function_of(name: &ObjectName) -> Option<String> {
    let mut parts = name.0.iter().map(|part| Some(part.as_ident()?.value.to_lowercase()));
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Some(schema)), Some(Some(function)), None) if schema == "cron" => Some(function),
        _ => None,
    }
}

/// A function of the schema cron that a query calls somewhere within.
fn named_within(query: &Query) -> Option<String> {
    let mut found = None;
    query.each(|node| {
        let name = match node {
            Node::Expr(Expr::Function(call)) => &call.name,
            Node::Factor(TableFactor::Table { name, args: Some(_), .. }) => name,
            _ => return,
        };
        found = found.take().or_else(|| function_of(name));
    });
    found
}

/// The name under which an argument goes here.
fn argument_of(function: Function, name: &str) -> String {
    match (function, name) {
        (Function::Unschedule, "job_name" | "job_id" | "jobid") => "job",
        (Function::Alter, "jobid") => "job_id",
        (_, name) => name,
    }
    .to_owned()
}

impl CronCall {
    fn field(&self) -> Field {
        let data_type = match self.function {
            Function::Schedule => DataType::Int64,
            Function::Unschedule => DataType::Boolean,
            Function::Alter => DataType::Null,
        };
        Field::new(&self.column, data_type, true)
    }

    /// The one column of its answer.
    pub(super) fn columns(&self) -> Vec<OutputColumn> {
        output_columns(&Arc::new(Schema::new(vec![self.field()])))
    }

    /// The query that gives its arguments.
    pub(super) fn arguments(&self) -> &Statement {
        &self.arguments
    }

    /// What the calls of some rows of arguments do.
    fn acts(&self, rows: &RecordBatch) -> Result<Vec<Act>> {
        let texts = |name: &str| -> Result<Option<ArrayRef>> {
            let column = rows.column_by_name(name);
            Ok(column.map(|column| cast(column, &DataType::Utf8)).transpose()?)
        };
        for other in ["database", "username"] {
            if rows.column_by_name(other).is_some_and(|column| column.null_count() < column.len()) {
                return Err(Error::not_supported(format!(
                    "cron.alter_job: {other} cannot be changed: a job runs in this warehouse, as the one who scheduled it"
                )));
            }
        }
        let [name, schedule, command, job, active] = [
            texts("job_name")?,
            texts("schedule")?,
            texts("command")?,
            texts("job")?,
            texts("active")?,
        ];
        let is_number = rows.column_by_name("job").is_some_and(|job| job.data_type().is_integer());
        let ids = rows.column_by_name("job_id").map(|ids| ids.as_primitive::<Int64Type>());
        let text = |column: &Option<ArrayRef>, row: usize| {
            let texts = column.as_ref()?.as_string::<i32>();
            texts.is_valid(row).then(|| texts.value(row).to_owned())
        };
        let act = |row: usize| match self.function {
            Function::Schedule if name.is_some() && text(&name, row).is_none() => {
                Err(bad("schedule", "the name is NULL; a job without one has two arguments"))
            }
            Function::Schedule => Ok(Act::Schedule {
                name: text(&name, row),
                schedule: text(&schedule, row)
                    .ok_or_else(|| bad("schedule", "the schedule is NULL"))?,
                command: text(&command, row)
                    .ok_or_else(|| bad("schedule", "the command is NULL"))?,
            }),
            Function::Unschedule => {
                let job = text(&job, row)
                    .ok_or_else(|| bad("unschedule", "a name or a number is needed"))?;
                Ok(Act::Unschedule(match job.parse() {
                    Ok(id) if is_number => Wanted::Id(id),
                    _ => Wanted::Name(job),
                }))
            }
            Function::Alter => Ok(Act::Alter {
                id: { ids.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row)) }
                    .ok_or_else(|| bad("alter_job", "job_id is NULL"))?,
                schedule: text(&schedule, row),
                command: text(&command, row),
                is_active: text(&active, row).map(|active| active == "true"),
            }),
        };
        (0..rows.num_rows()).map(act).collect()
    }
}

/// Runs the calls, all of them or none.
pub(super) async fn run(
    session: &Session,
    call: &CronCall,
    text: &str,
    values: &[Expr],
) -> Result<Outcome> {
    let mut query = call.arguments.clone();
    parameters::bind(&mut query, values)?;
    let Planned { plan, planning, .. } = plan(session, query, text, &[]).await?;
    let mut rows = planning.run(&plan).await?;
    let mut acts = Vec::new();
    while let Some(batch) = rows.next().await {
        acts.extend(call.acts(&batch?)?);
    }
    for act in &acts {
        match act {
            Act::Schedule { schedule, command, .. } => check(Some(schedule), Some(command))?,
            Act::Alter { schedule, command, .. } => check(schedule.as_deref(), command.as_deref())?,
            Act::Unschedule(_) => {}
        }
    }
    let mut numbers = Vec::new();
    session
        .engine()
        .warehouse()
        .publish_names(|state| {
            let (changes, of) = changes(session, state, &acts)?;
            numbers = of;
            Ok(changes)
        })
        .await?;
    let count = acts.len();
    let value: ArrayRef = match call.function {
        Function::Schedule => Arc::new(Int64Array::from(numbers)),
        Function::Unschedule => Arc::new(BooleanArray::from(vec![true; count])),
        Function::Alter => Arc::new(NullArray::new(count)),
    };
    let schema = Arc::new(Schema::new(vec![call.field()]));
    Ok(answer(RecordBatch::try_new(schema, vec![value])?, "SELECT"))
}

/// What some calls change, and the numbers of the jobs that they are about.
fn changes(
    session: &Session,
    state: &Generation,
    acts: &[Act],
) -> Result<(BTreeMap<Name, Change>, Vec<i64>)> {
    let now_us = Utc::now().timestamp_micros();
    let mut all = jobs(state)?;
    let mut last = last_number(state)?;
    let (mut changes, mut numbers) = (BTreeMap::new(), Vec::new());
    for act in acts {
        let mut job = match act {
            Act::Schedule { name, .. } => {
                let is_same =
                    |job: &&Job| name.is_some() && job.name == *name && job.user == session.user();
                let id = all.iter().find(is_same).map_or(last + 1, |job| job.id);
                if id > last {
                    last = id;
                    let (name, change) = numbered(last);
                    changes.insert(name, change);
                }
                Job {
                    id,
                    name: name.clone(),
                    schedule: String::new(),
                    timezone: session.settings().timezone(),
                    command: String::new(),
                    user: session.user().to_owned(),
                    is_active: true,
                    settled_us: now_us,
                }
            }
            Act::Unschedule(wanted) => find(&all, wanted)?,
            Act::Alter { id, .. } => find(&all, &Wanted::Id(*id))?,
        };
        numbers.push(job.id);
        all.retain(|known| known.id != job.id);
        let change = match act {
            Act::Unschedule(_) => Change::Dropped,
            Act::Schedule { schedule, command, .. } => {
                job.schedule.clone_from(schedule);
                job.command.clone_from(command);
                job.noted()?
            }
            Act::Alter { schedule, command, is_active, .. } => {
                if let Some(schedule) = schedule {
                    job.schedule.clone_from(schedule);
                    job.settled_us = now_us;
                }
                if let Some(command) = command {
                    job.command.clone_from(command);
                }
                job.is_active = is_active.unwrap_or(job.is_active);
                job.noted()?
            }
        };
        changes.insert(Job::note(job.id), change);
        if !matches!(act, Act::Unschedule(_)) {
            all.push(job);
        }
    }
    Ok((changes, numbers))
}

fn check(schedule: Option<&str>, command: Option<&str>) -> Result<()> {
    if let Some(schedule) = schedule {
        Job::read_schedule(schedule)?;
    }
    let Some(command) = command else { return Ok(()) };
    let parsed = parse(command).map_err(|error| error.at(None).about("the command"))?;
    if parsed.is_empty() {
        return Err(Error::new(Kind::InvalidParameter, "the command is empty"));
    }
    match parsed.iter().find(|parsed| needs_a_client(&parsed.statement)) {
        None => Ok(()),
        Some(parsed) => Err(Error::not_supported(format!(
            "the command has a statement that needs a client: {}",
            parsed.text.trim()
        ))
        .hint("a job reads and writes tables; COPY ... TO 'path' and EXPORT write files")),
    }
}

/// Whether a statement is about a connection, or sends rows over one.
fn needs_a_client(statement: &super::statement::Statement) -> bool {
    use super::SessionCommand::{Begin, Commit, Set};
    use super::copy::CopyTarget;
    use super::statement::Statement as Parsed;
    match statement {
        Parsed::Session(command) => !matches!(command, Begin { .. } | Commit | Set { .. }),
        Parsed::Copy(copy) => matches!(copy.target, CopyTarget::Stdin | CopyTarget::Stdout),
        _ => false,
    }
}

fn find(all: &[Job], wanted: &Wanted) -> Result<Job> {
    let is_it = |job: &&Job| match wanted {
        Wanted::Id(id) => job.id == *id,
        Wanted::Name(name) => job.name.as_ref() == Some(name),
    };
    let shown = match wanted {
        Wanted::Id(id) => id.to_string(),
        Wanted::Name(name) => format!("'{name}'"),
    };
    all.iter().find(is_it).cloned().ok_or_else(|| {
        Error::new(Kind::UndefinedObject, format!("could not find a valid entry for job {shown}"))
            .hint("SELECT jobid, jobname FROM cron.job lists those that there are")
    })
}

/// Where the note of a job is kept.
pub(super) fn note(job: &Job) -> Name {
    Job::note(job.id)
}
