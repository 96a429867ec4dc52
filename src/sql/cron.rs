//! `SELECT cron.schedule('name', '0 2 * * *', $$VACUUM$$)` and its kin, as pg_cron's users write them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::Utc;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr, Statement, Value,
};

use super::statement::parse;
use super::{Outcome, OutputColumn, answer, output_columns};
use crate::error::{Error, Kind, Result};
use crate::report::{Job, jobs};
use crate::session::Session;
use crate::store::{Change, Name};

/// A call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CronCall {
    /// `cron.schedule([name,] schedule, command)`: its number.
    Schedule {
        /// Name; one that is there already is changed.
        name: Option<String>,
        /// A cron pattern, or `'30 seconds'`.
        schedule: String,
        /// Statements.
        command: String,
    },
    /// `cron.unschedule(name or number)`: whether there was one.
    Unschedule(Wanted),
    /// `cron.alter_job(number, ...)`.
    Alter {
        /// Number.
        id: i64,
        /// Another schedule.
        schedule: Option<String>,
        /// Other statements.
        command: Option<String>,
        /// Whether it runs.
        is_active: Option<bool>,
    },
}

/// Which job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// That of this number.
    Id(i64),
    /// That of this name.
    Name(String),
}

const FORMS: &str = "cron.schedule([name,] schedule, command), cron.unschedule(name or jobid), cron.alter_job(job_id, schedule => , command => , active => )";

/// The call that a statement is; `None` for any other statement.
pub(super) fn read(statement: &Statement) -> Result<Option<CronCall>> {
    let Statement::Query(query) = statement else { return Ok(None) };
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(None) };
    let [
        SelectItem::UnnamedExpr(Expr::Function(call))
        | SelectItem::ExprWithAlias { expr: Expr::Function(call), .. },
    ] = select.projection.as_slice()
    else {
        return Ok(None);
    };
    let parts: Vec<String> = { call.name.0.iter() }
        .filter_map(|part| Some(part.as_ident()?.value.to_lowercase()))
        .collect();
    let [schema, function] = parts.as_slice() else { return Ok(None) };
    if schema != "cron" {
        return Ok(None);
    }
    let bad = |problem: &str| {
        Error::new(Kind::UndefinedFunction, format!("cron.{function}: {problem}")).hint(FORMS)
    };
    if !select.from.is_empty() || select.selection.is_some() {
        return Err(bad("it is called by itself: SELECT cron.schedule(...)"));
    }
    let FunctionArguments::List(list) = &call.args else {
        return Err(bad("arguments are missing"));
    };
    let mut given: Vec<(Option<String>, Value)> = Vec::new();
    for arg in &list.args {
        let (name, expr) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (None, expr),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                (Some(name.value.to_lowercase()), expr)
            }
            other => return Err(bad(&format!("{other} is no value"))),
        };
        given.push((name, value_of(expr).ok_or_else(|| bad("its arguments are constants"))?));
    }
    let names: &[&str] = match (function.as_str(), given.len()) {
        ("schedule", 2) => &["schedule", "command"],
        ("schedule", 3) => &["job_name", "schedule", "command"],
        ("unschedule", 1) => &["job_name"],
        ("alter_job", 1..) => &["job_id", "schedule", "command", "database", "username", "active"],
        _ => return Err(bad("there is no such function, or none with so many arguments")),
    };
    let take = |wanted: &str| -> Option<&Value> {
        let place = names.iter().position(|name| *name == wanted);
        let by_name = given.iter().find(|(name, _)| name.as_deref() == Some(wanted));
        let by_place = place.and_then(|at| given.get(at)).filter(|(name, _)| name.is_none());
        by_name.or(by_place).map(|(_, value)| value).filter(|value| !matches!(value, Value::Null))
    };
    if let Some((Some(unknown), _)) = given.iter().find(|(name, _)| {
        name.as_ref().is_some_and(|n| !names.contains(&n.as_str()) && n != "jobid" && n != "job_id")
    }) {
        return Err(bad(&format!("there is no argument \"{unknown}\"")));
    }
    let text = |wanted: &str| take(wanted).and_then(|value| value.clone().into_string());
    let number = |value: Option<&Value>| match value {
        Some(Value::Number(digits, _)) => digits.parse::<i64>().ok(),
        _ => None,
    };
    let call = match function.as_str() {
        "schedule" => CronCall::Schedule {
            name: text("job_name"),
            schedule: text("schedule").ok_or_else(|| bad("the schedule is a text"))?,
            command: text("command").ok_or_else(|| bad("the command is a text"))?,
        },
        "unschedule" => {
            let wanted = take("job_name").or_else(|| take("job_id"));
            match (number(wanted), wanted.and_then(|value| value.clone().into_string())) {
                (Some(id), _) => CronCall::Unschedule(Wanted::Id(id)),
                (None, Some(name)) => CronCall::Unschedule(Wanted::Name(name)),
                _ => return Err(bad("a name or a number is needed")),
            }
        }
        _ => CronCall::Alter {
            id: number(take("job_id")).ok_or_else(|| bad("job_id is a number"))?,
            schedule: text("schedule"),
            command: text("command"),
            is_active: match take("active") {
                Some(Value::Boolean(active)) => Some(*active),
                _ => None,
            },
        },
    };
    Ok(Some(call))
}

fn value_of(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::Value(value) if !matches!(value.value, Value::Placeholder(_)) => {
            Some(value.value.clone())
        }
        Expr::Cast { expr, .. } | Expr::Nested(expr) => value_of(expr),
        _ => None,
    }
}

impl CronCall {
    fn field(&self) -> Field {
        match self {
            Self::Schedule { .. } => Field::new("schedule", DataType::Int64, true),
            Self::Unschedule(_) => Field::new("unschedule", DataType::Boolean, true),
            Self::Alter { .. } => Field::new("alter_job", DataType::Null, true),
        }
    }

    /// The one column of its answer.
    pub(super) fn columns(&self) -> Vec<OutputColumn> {
        output_columns(&Arc::new(Schema::new(vec![self.field()])))
    }
}

/// Runs a call.
pub(super) async fn run(session: &Session, call: &CronCall) -> Result<Outcome> {
    let warehouse = session.engine().warehouse();
    let value: ArrayRef = match call {
        CronCall::Schedule { name, schedule, command } => {
            check(Some(schedule), Some(command))?;
            let timezone = session.settings().timezone();
            let mut id = 0;
            warehouse
                .publish_names(|state| {
                    let all = jobs(state)?;
                    let is_same = |job: &&Job| {
                        name.is_some() && job.name == *name && job.user == session.user()
                    };
                    let known = all.iter().find(is_same);
                    // Numbers are not given again while a later one is there.
                    let next = all.last().map_or(1, |job| job.id + 1);
                    id = known.map_or(next, |job| job.id);
                    let job = Job {
                        id,
                        name: name.clone(),
                        schedule: schedule.clone(),
                        timezone: timezone.clone(),
                        command: command.clone(),
                        user: session.user().to_owned(),
                        is_active: true,
                        settled_us: Utc::now().timestamp_micros(),
                    };
                    Ok(BTreeMap::from([(Job::note(id), job.noted()?)]))
                })
                .await?;
            Arc::new(Int64Array::from(vec![id]))
        }
        CronCall::Unschedule(wanted) => {
            warehouse
                .publish_names(|state| {
                    let job = find(&jobs(state)?, wanted)?;
                    Ok(BTreeMap::from([(Job::note(job.id), Change::Dropped)]))
                })
                .await?;
            Arc::new(BooleanArray::from(vec![true]))
        }
        CronCall::Alter { id, schedule, command, is_active } => {
            check(schedule.as_deref(), command.as_deref())?;
            warehouse
                .publish_names(|state| {
                    let mut job = find(&jobs(state)?, &Wanted::Id(*id))?;
                    if let Some(schedule) = schedule {
                        job.schedule.clone_from(schedule);
                        job.settled_us = Utc::now().timestamp_micros();
                    }
                    if let Some(command) = command {
                        job.command.clone_from(command);
                    }
                    if let Some(is_active) = is_active {
                        job.is_active = *is_active;
                    }
                    Ok(BTreeMap::from([(Job::note(job.id), job.noted()?)]))
                })
                .await?;
            Arc::new(NullArray::new(1))
        }
    };
    let schema = Arc::new(Schema::new(vec![call.field()]));
    Ok(answer(RecordBatch::try_new(schema, vec![value])?, "SELECT"))
}

fn check(schedule: Option<&str>, command: Option<&str>) -> Result<()> {
    if let Some(schedule) = schedule {
        Job::read_schedule(schedule)?;
    }
    if let Some(command) = command
        && parse(command).map_err(|error| error.at(None).about("the command"))?.is_empty()
    {
        return Err(Error::new(Kind::InvalidParameter, "the command is empty"));
    }
    Ok(())
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
