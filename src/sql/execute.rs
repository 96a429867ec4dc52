//! Runs statements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use chrono::NaiveDate;
use clientele_tree::{Node, NodeMut, Tree};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, ObjectType, Query, TableFactor,
};
use futures::StreamExt;

use super::copy::{CopySource, CopyStatement, CopyTarget};
use super::create_function::FunctionStatement;
use super::ddl::CreateTable;
use super::parameters::{self, Described};
use super::statement::{Parsed, Statement};
use super::{
    Outcome, OutputColumn, alter, check, compact, create_function, cron, delete, erase, forget,
    funnels, materialized, names, oneid, output_columns, past, quality, restore, rewrite, volatile,
};
use crate::catalog::{DATABASE, DEFAULT_SCHEMA};
use crate::config::MaxBad;
use crate::error::{Error, Kind, Result};
use crate::ingest::{self, LoadRequest, Silent, model};
use crate::report::{definitions, history_of};
use crate::session::{Planning, Session};
use crate::store::{
    Change, Clustering, Generation, Group, Name, Relation, TableChange, ViewDef, stored_schema,
};
use crate::{dialect, identity};

/// Runs one statement, with `values` in the places of its parameters.
pub async fn execute(session: &Session, parsed: &Parsed, values: &[Expr]) -> Result<Outcome> {
    if let Some(command) = parsed.statement.writes()
        && session.settings().reads_only()
    {
        return Err(Error::new(
            Kind::ReadOnly,
            format!("cannot execute {command} in a read-only transaction"),
        )
        .hint("BEGIN READ WRITE, or SET default_transaction_read_only = off"));
    }
    match &parsed.statement {
        Statement::Query(statement) => {
            let mut statement = statement.as_ref().clone();
            parameters::bind(&mut statement, values)?;
            Box::pin(rows(session, statement, &parsed.text)).await
        }
        Statement::Insert(insert) => {
            let mut insert = insert.as_ref().clone();
            parameters::bind(&mut insert, values)?;
            Box::pin(insert_rows(session, insert, &parsed.text)).await
        }
        Statement::Delete(rows) => Box::pin(delete::run(session, rows, &parsed.text, values)).await,
        Statement::CreateTable(create) => create_table(session, create, &parsed.text).await,
        Statement::CreateTableAs(create) => {
            Box::pin(create_table_as(session, create, &parsed.text)).await
        }
        Statement::Function(FunctionStatement::Create(function)) => {
            Box::pin(create_function::create(session, function)).await
        }
        Statement::Function(FunctionStatement::Drop(names)) => {
            create_function::drop(session, names).await
        }
        Statement::CreateView(view) => create_view(session, view, &parsed.text).await,
        Statement::CreateSchema(_) => Ok(Outcome::Done("CREATE SCHEMA".to_owned())),
        Statement::Drop(statement) => drop_relations(session, statement).await,
        Statement::Copy(copy) => Box::pin(run_copy(session, copy)).await,
        Statement::Graph(graph) => {
            let engine = session.engine();
            let tag = Box::pin(identity::execute(
                engine.warehouse(),
                graph,
                &engine.workspace("identity graph"),
            ))
            .await?;
            Ok(match tag.notice {
                Some(notice) => Outcome::Noticed { tag: tag.tag, notice },
                None => Outcome::Done(tag.tag),
            })
        }
        Statement::AddColumn(add) => Box::pin(alter::add_column(session, add, &parsed.text)).await,
        Statement::SetIdentity(set) => Box::pin(alter::set_identity(session, set)).await,
        Statement::Check(tables) => Box::pin(check::check(session, tables)).await,
        Statement::CheckQuality(tables) => Box::pin(quality::run(session, tables)).await,
        Statement::Compact(tables) => {
            tables.iter().try_for_each(refuse_reserved)?;
            Box::pin(compact::run(session, tables)).await
        }
        Statement::Erase(erase) => Box::pin(erase::run(session, erase)).await,
        Statement::Forget(forget) => Box::pin(forget::run(session, forget)).await,
        Statement::Restore(restore) => Box::pin(restore::run(session, restore)).await,
        Statement::CheckErased => Box::pin(erase::check(session)).await,
        Statement::Vacuum => {
            let keep = session.engine().config().storage.keep();
            let done = Box::pin(session.engine().warehouse().vacuum(None, keep)).await?;
            Ok(Outcome::Noticed { tag: "VACUUM".to_owned(), notice: erase::described(&done) })
        }
        Statement::Report(report) => Box::pin(materialized::run(session, report)).await,
        Statement::Cron(call) => Box::pin(cron::run(session, call, &parsed.text, values)).await,
        Statement::Session(command) => Ok(Outcome::Session(command.clone())),
    }
}

/// Says what a statement takes and gives, without running it. `declared` are the types the client gave.
pub async fn describe(
    session: &Session,
    parsed: &Parsed,
    declared: &[Option<DataType>],
) -> Result<Described> {
    let statement = match &parsed.statement {
        Statement::Query(statement) => statement.as_ref().clone(),
        Statement::Delete(rows) => {
            let described = described(session, rows.count.clone(), parsed, declared).await?;
            return Ok(Described { columns: None, ..described });
        }
        Statement::Insert(insert) => {
            if let Some(source) = &insert.source
                && !matches!(source.body.as_ref(), ast::SetExpr::Values(_))
            {
                insert_target(session, insert).await?;
                let query = ast::Statement::Query(source.clone());
                let described = Box::pin(described(session, query, parsed, declared)).await?;
                return Ok(Described { columns: None, ..described });
            }
            let types = parameters::hinted(insert.as_ref(), declared)?;
            let types = insert_types(session, insert, types).await?;
            return Ok(Described { parameters: types, columns: None });
        }
        Statement::Check(_) => {
            return Ok(Described { parameters: vec![], columns: Some(check::columns()) });
        }
        Statement::CheckQuality(_) => {
            return Ok(Described { parameters: vec![], columns: Some(quality::columns()) });
        }
        Statement::Cron(call) => {
            let arguments = call.arguments().clone();
            let described = Box::pin(described(session, arguments, parsed, declared)).await?;
            return Ok(Described { columns: Some(call.columns()), ..described });
        }
        Statement::CheckErased => {
            return Ok(Described { parameters: vec![], columns: Some(erase::columns()) });
        }
        _ => return Ok(Described { parameters: vec![], columns: None }),
    };
    Box::pin(described(session, statement, parsed, declared)).await
}

async fn described(
    session: &Session,
    mut statement: ast::Statement,
    parsed: &Parsed,
    declared: &[Option<DataType>],
) -> Result<Described> {
    create_function::expand(session, &mut statement).await?;
    let types = parameters::hinted(&statement, declared)?;
    let Planned { plan, planning, .. } = plan(session, statement, &parsed.text, &types).await?;
    let found = plan.get_parameter_types()?;
    let parameter = |(i, hint): (usize, &Option<DataType>)| {
        let found = found.get(&format!("${}", i + 1)).cloned().flatten();
        // What nothing tells is text, as in PostgreSQL.
        hint.clone().or(found).filter(|t| !t.is_null()).map_or(DataType::Utf8, simple_type)
    };
    let parameters = types.iter().enumerate().map(parameter).collect();
    let plan = planning.analyzed(&plan).unwrap_or(plan);
    let columns = output_columns(&Arc::new(plan.schema().as_arrow().clone()));
    Ok(Described { parameters, columns: Some(columns) })
}

/// Views and dictionaries are ways to keep text, not types that a client can give.
fn simple_type(data_type: DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Dictionary(_, value) => simple_type(*value),
        DataType::UInt8 | DataType::Int8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        other => other,
    }
}

pub(super) async fn plan(
    session: &Session,
    mut statement: ast::Statement,
    text: &str,
    types: &[Option<DataType>],
) -> Result<Planned> {
    create_function::expand(session, &mut statement).await?;
    let past = past::take(&mut statement, &session.settings().timezone())?;
    rewrite::rewrite(&mut statement)?;
    funnels::in_dialect(&mut statement, &session.settings().funnel_dialect())?;
    let planning = session.planning(text, &past).await?;
    Box::pin(oneid::answer(session, &planning, &mut statement)).await?;
    let has_window = funnels::has_window(&statement);
    let plan = planning.plan(statement, parameters::fields(types))?;
    let notices = if has_window { funnels::notices(&plan)? } else { vec![] };
    Ok(Planned { plan, planning, notices })
}

/// A statement, ready to be run.
pub(super) struct Planned {
    pub(super) plan: LogicalPlan,
    pub(super) planning: Planning,
    /// What the user should know of it.
    notices: Vec<String>,
}

async fn rows(session: &Session, statement: ast::Statement, text: &str) -> Result<Outcome> {
    let tag =
        if matches!(statement, ast::Statement::Explain { .. }) { "EXPLAIN" } else { "SELECT" };
    let Planned { plan, planning, notices } = plan(session, statement, text, &[]).await?;
    let stream = planning.run(&plan).await?;
    let columns = output_columns(&stream.schema());
    Ok(Outcome::Rows { columns, stream, tag, notices })
}

/// A command that is done, with what the user should know.
fn done(tag: String, notices: &[String]) -> Outcome {
    match notices {
        [] => Outcome::Done(tag),
        notices => Outcome::Noticed { tag, notice: notices.join("; ") },
    }
}

/// A name as it is stored: folded unless quoted.
pub(super) fn name_of(name: &ObjectName) -> Result<Name> {
    let parts = name.0.iter().map(|part| part.as_ident().map(names::folded));
    match parts.collect() {
        Some(parts) => full_name(parts),
        None => Err(Error::new(Kind::Syntax, format!("{name} is not a table's name"))),
    }
}

/// A relation by the parts of its name: its own, its schema's, the database's.
///
/// # Errors
/// 0A000 for a database that this is not.
pub fn full_name(mut parts: Vec<String>) -> Result<Name> {
    let whole = parts.join(".");
    let table = parts.pop().unwrap_or_default();
    let schema = parts.pop().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
    match parts.as_slice() {
        [] => Ok(Name::new(schema, table)),
        [database] if database == DATABASE => Ok(Name::new(schema, table)),
        _ => Err(Error::not_supported(format!(
            "\"{whole}\" is not in this database; it is called \"{DATABASE}\""
        ))
        .hint("a name is table or schema.table; quote one that has a dot in it")),
    }
}

pub(super) fn refuse_reserved(name: &Name) -> Result<()> {
    if name.schema.is_empty() || name.table.is_empty() {
        return Err(Error::new(Kind::Syntax, "syntax error: a name has one letter at least"));
    }
    if name.is_reserved() {
        return Err(Error::new(
            Kind::NotAllowed,
            format!("schema \"{}\" belongs to the warehouse", name.schema),
        ));
    }
    if name.table.starts_with("pg_") && name.schema == DEFAULT_SCHEMA {
        return Err(Error::new(
            Kind::NotAllowed,
            format!("\"{}\": names that begin with pg_ belong to the catalogue", name.table),
        ));
    }
    Ok(())
}

async fn insert_types(
    session: &Session,
    insert: &ast::Insert,
    hinted: Vec<Option<DataType>>,
) -> Result<Vec<DataType>> {
    // A parameter that is a whole value of VALUES has the type of its column.
    let mut types = hinted;
    let target = insert_target(session, insert).await?;
    if let Some(source) = &insert.source
        && let ast::SetExpr::Values(values) = source.body.as_ref()
    {
        for row in &values.rows {
            for (expr, (_, data_type)) in row.iter().zip(&target.columns) {
                let single = parameters::hinted(expr, &[])?;
                if let (Expr::Value(_), Some(at)) = (expr, single.len().checked_sub(1))
                    && types[at].is_none()
                {
                    types[at] = Some(data_type.clone());
                }
            }
        }
    }
    Ok(types.into_iter().map(|t| t.map_or(DataType::Utf8, simple_type)).collect())
}

struct InsertTarget {
    name: Name,
    path: String,
    schema: SchemaRef,
    personal: Vec<String>,
    clustering: Option<Clustering>,
    /// Columns that the rows fill, in the rows' order.
    columns: Vec<(usize, DataType)>,
}

async fn insert_target(session: &Session, insert: &ast::Insert) -> Result<InsertTarget> {
    let ast::TableObject::TableName(table) = &insert.table else {
        return Err(Error::not_supported("INSERT goes into a table by its own name"));
    };
    let name = name_of(table)?;
    refuse_reserved(&name)?;
    if insert.on.is_some() || insert.returning.is_some() || insert.overwrite {
        return Err(Error::not_supported("INSERT ... ON CONFLICT and RETURNING are not supported"));
    }
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    newest.refuse_rows(&name)?;
    let def = match newest.relations.get(&name) {
        Some(Relation::Table(def)) => def.clone(),
        Some(_) => {
            return Err(Error::new(
                Kind::WrongObjectType,
                format!("\"{name}\" is not a table; rows go into tables"),
            ));
        }
        None => {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("relation \"{name}\" does not exist"),
            ));
        }
    };
    let snapshot = warehouse.snapshot(&def).await?;
    let schema = Arc::clone(&snapshot.schema);
    let columns = if insert.columns.is_empty() {
        schema.fields().iter().enumerate().map(|(i, f)| (i, f.data_type().clone())).collect()
    } else {
        let mut columns = Vec::new();
        for column in &insert.columns {
            let wanted = name_of(column)?.table;
            let Ok(at) = schema.index_of(&wanted) else {
                return Err(Error::new(
                    Kind::UndefinedColumn,
                    format!("column \"{wanted}\" of relation \"{name}\" does not exist"),
                ));
            };
            if columns.iter().any(|(i, _)| *i == at) {
                return Err(Error::new(
                    Kind::DuplicateColumn,
                    format!("column \"{wanted}\" is named twice"),
                ));
            }
            columns.push((at, schema.field(at).data_type().clone()));
        }
        columns
    };
    Ok(InsertTarget {
        name,
        path: def.path,
        schema,
        personal: snapshot.personal.clone(),
        clustering: snapshot.clustering.clone(),
        columns,
    })
}

async fn insert_rows(session: &Session, insert: ast::Insert, text: &str) -> Result<Outcome> {
    let target = insert_target(session, &insert).await?;
    let Some(source) = insert.source else {
        return Err(Error::not_supported("INSERT needs VALUES or a query"));
    };
    let query = ast::Statement::Query(source);
    let Planned { plan, planning, notices } = plan(session, query, text, &[]).await?;
    let given = plan.schema().fields().len();
    if given > target.columns.len() || (!insert.columns.is_empty() && given < target.columns.len())
    {
        return Err(Error::new(
            Kind::Syntax,
            format!("INSERT has {given} values a row for {} columns", target.columns.len()),
        ));
    }
    let types: Vec<DataType> = target.columns.iter().map(|(_, t)| t.clone()).collect();
    let plan = planning.inserted(plan, &types)?;
    let mut stream = planning.run(&plan).await?;
    let warehouse = session.engine().warehouse();
    let (schema, clustering) = (Arc::clone(&target.schema), target.clustering.as_ref());
    let mut writer = warehouse.writer(&target.path, schema, &target.personal, clustering).await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = fill(&batch?, &target)?;
        rows += batch.num_rows();
        writer.write(&batch).await?;
    }
    rows -= writer.left_out() as usize;
    let files = writer.finish().await?;
    let change = TableChange::append(target.name, target.path, files);
    if rows > 0 {
        warehouse.publish(Group::of(change)).await?;
    }
    Ok(done(format!("INSERT 0 {rows}"), &notices))
}

/// The rows of `batch` as rows of the table; columns that are not given are NULL.
fn fill(batch: &RecordBatch, target: &InsertTarget) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = target
        .schema
        .fields()
        .iter()
        .map(|f| new_null_array(f.data_type(), batch.num_rows()))
        .collect();
    for (given, (at, data_type)) in batch.columns().iter().zip(&target.columns) {
        columns[*at] = strict_cast(given, data_type, target.schema.field(*at).name())?;
    }
    Ok(RecordBatch::try_new(Arc::clone(&target.schema), columns)?)
}

/// The rows of `batch`, whose columns are the table's, in stored types.
pub(super) fn fill_all(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, f)| strict_cast(column, f.data_type(), f.name()));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
}

fn strict_cast(array: &ArrayRef, to: &DataType, column: &str) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|error| {
        let error = Error::from(error);
        Error::new(error.kind(), format!("column \"{column}\": {}", error.message()))
    })
}

async fn create_table(session: &Session, create: &CreateTable, text: &str) -> Result<Outcome> {
    let name = name_of(&create.table.name)?;
    refuse_reserved(&name)?;
    let warehouse = session.engine().warehouse();
    if let Some(outcome) =
        when_taken(session, &name, create.table.if_not_exists, "CREATE TABLE").await?
    {
        return Ok(outcome);
    }
    if create.table.columns.is_empty() {
        return Err(Error::new(Kind::Syntax, "a table needs at least one column"));
    }
    let planning = session.planning(text, &[]).await?;
    let schema = SqlToRel::new(&planning).build_schema(create.table.columns.clone())?;
    let schema = stored_schema(&schema)?;
    let mut personal = model::personal_columns(&schema);
    personal.extend(create.personal.iter().filter(|c| !model::is_personal(c)).cloned());
    let clustering = clustering_of(create, &name, &schema)?;
    let path = warehouse.prepare_table(&name, &schema, &personal, clustering.as_ref()).await?;
    let change = TableChange::create(name, path, vec![]);
    warehouse.publish(Group::of(change)).await?;
    Ok(Outcome::Done("CREATE TABLE".to_owned()))
}

/// How a new table is clustered: as it says, or as the model's tables are.
fn clustering_of(
    create: &CreateTable,
    name: &Name,
    schema: &SchemaRef,
) -> Result<Option<Clustering>> {
    match &create.cluster_by {
        Some(by) => Clustering::new(schema, by.columns.clone(), by.buckets).map(Some),
        None => Ok(model::clustering(&name.table, schema)),
    }
}

/// What to answer when a name is taken already; `None` when it is free.
async fn when_taken(
    session: &Session,
    name: &Name,
    if_not_exists: bool,
    tag: &str,
) -> Result<Option<Outcome>> {
    let newest = session.engine().warehouse().newest().await?;
    if !newest.relations.contains_key(name) {
        return Ok(None);
    }
    if if_not_exists {
        let notice = format!("relation \"{name}\" already exists, skipping");
        return Ok(Some(Outcome::Noticed { tag: tag.to_owned(), notice }));
    }
    Err(Error::new(Kind::DuplicateTable, format!("relation \"{name}\" already exists")))
}

async fn create_table_as(session: &Session, create: &CreateTable, text: &str) -> Result<Outcome> {
    let name = name_of(&create.table.name)?;
    refuse_reserved(&name)?;
    if let Some(outcome) =
        when_taken(session, &name, create.table.if_not_exists, "CREATE TABLE AS").await?
    {
        return Ok(outcome);
    }
    let Some(query) = &create.table.query else {
        return Err(Error::internal("CREATE TABLE AS has a query"));
    };
    let query = ast::Statement::Query(query.clone());
    let Planned { plan, planning, notices } = plan(session, query, text, &[]).await?;
    let mut stream = planning.run(&plan).await?;
    let schema = stored_schema(&shown_schema(&stream.schema()))?;
    let personal = model::personal_columns(&schema);
    let warehouse = session.engine().warehouse();
    let clustering = clustering_of(create, &name, &schema)?;
    let clustering = clustering.as_ref();
    let path = warehouse.prepare_table(&name, &schema, &personal, clustering).await?;
    let mut writer = warehouse.writer(&path, Arc::clone(&schema), &personal, clustering).await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let columns = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(c, f)| strict_cast(c, f.data_type(), f.name()));
        rows += batch.num_rows();
        writer
            .write(&RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_>>()?)?)
            .await?;
    }
    rows -= writer.left_out() as usize;
    let files = writer.finish().await?;
    let change = TableChange::create(name, path, files);
    warehouse.publish(Group::of(change)).await?;
    Ok(done(format!("SELECT {rows}"), &notices))
}

pub(super) fn shown_schema(schema: &SchemaRef) -> arrow::datatypes::Schema {
    let columns = output_columns(schema);
    let field = |c: OutputColumn| c.field.as_ref().clone().with_name(c.name);
    arrow::datatypes::Schema::new(columns.into_iter().map(field).collect::<Vec<_>>())
}

async fn create_view(session: &Session, view: &ast::CreateView, text: &str) -> Result<Outcome> {
    let name = name_of(&view.name)?;
    refuse_reserved(&name)?;
    if view.materialized {
        return Err(Error::not_supported("CREATE OR REPLACE MATERIALIZED VIEW is not supported")
            .hint("DROP MATERIALIZED VIEW, then CREATE MATERIALIZED VIEW"));
    }
    if view.temporary {
        return Err(Error::not_supported("temporary views are not supported"));
    }
    let mut query = view.query.as_ref().clone();
    // A view keeps the functions that it calls as they are now.
    create_function::expand(session, &mut query).await?;
    volatile::refuse_volatile(&query)?;
    past::refuse(&query)?;
    let settings = session.settings();
    let (timezone, dialect) = (settings.timezone(), settings.funnel_dialect());
    let frozen = Frozen {
        as_of: settings.as_of(),
        keeps_days: false,
        timezone: &timezone,
        dialect: &dialect,
    };
    freeze(&mut query, &frozen)?;
    // The view is planned once now, so that a mistake is told to the one who makes it.
    let planning = session.planning(text, &[]).await?;
    let query = rewrite::rewrite_query(query)?;
    let expanded = identity::expand_view(planning.pinned().generation(), query.clone())?;
    let plan = planning.plan_query(expanded)?;
    let notices = if funnels::has_window(&query) { funnels::notices(&plan)? } else { vec![] };
    let columns = view.columns.iter().map(|c| names::folded(&c.name)).collect();
    let zone = session.settings().timezone();
    let def =
        ViewDef { sql: query.to_string(), columns, timezone: (zone != "UTC").then_some(zone) };
    let replace = view.or_replace;
    session
        .engine()
        .warehouse()
        .publish_names(|state| {
            match state.relations.get(&name) {
                None => {}
                Some(Relation::View(_)) if replace => {}
                Some(Relation::View(_)) => {
                    return Err(Error::new(
                        Kind::DuplicateTable,
                        format!("relation \"{name}\" already exists"),
                    )
                    .hint("CREATE OR REPLACE VIEW changes a view"));
                }
                Some(_) => {
                    return Err(Error::new(
                        Kind::WrongObjectType,
                        format!("\"{name}\" is not a view"),
                    ));
                }
            }
            Ok(BTreeMap::from([(name.clone(), Change::Set(Relation::View(def.clone())))]))
        })
        .await?;
    Ok(done("CREATE VIEW".to_owned(), &notices))
}

/// What of a session is folded into a definition.
pub(super) struct Frozen<'a> {
    /// Its day.
    pub(super) as_of: Option<NaiveDate>,
    /// Whether `report_asof()` and its kin stay, to be answered by each run.
    pub(super) keeps_days: bool,
    /// Zone of its days.
    pub(super) timezone: &'a str,
    /// Whose rules its funnels follow.
    pub(super) dialect: &'a str,
}

/// Folds the session's settings that change an answer into the query, so that it means the same in every session.
pub(super) fn freeze(query: &mut Query, frozen: &Frozen) -> Result<()> {
    funnels::in_dialect(query, frozen.dialect)?;
    query.change(|node| match node {
        NodeMut::Expr(expr) if !frozen.keeps_days => freeze_day(expr, frozen.as_of),
        NodeMut::Factor(factor) => freeze_arguments(factor, frozen.as_of, frozen.timezone),
        NodeMut::Expr(_) | NodeMut::Query(_) => Ok(()),
    })
}

fn freeze_day(expr: &mut Expr, as_of: Option<NaiveDate>) -> Result<()> {
    let Expr::Function(function) = expr else { return Ok(()) };
    if !function.name.to_string().eq_ignore_ascii_case("report_asof") {
        return Ok(());
    }
    let Some(day) = as_of else {
        return Err(Error::new(
            Kind::InvalidParameter,
            "report_asof() has no day, and a view keeps the one it is made with",
        )
        .hint("SET as_of = '2011-12-09' before CREATE VIEW"));
    };
    *expr = dialect::parse_expression(&format!("DATE '{day}'"))?;
    Ok(())
}

fn freeze_arguments(
    factor: &mut TableFactor,
    as_of: Option<NaiveDate>,
    timezone: &str,
) -> Result<()> {
    let TableFactor::Table { name, args: Some(args), .. } = factor else { return Ok(()) };
    let called = name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase());
    let taken = crate::analysis::session_arguments(&called.unwrap_or_default());
    let has = |wanted: &str| {
        args.args.iter().any(|a| matches!(a, ast::FunctionArg::Named { name, .. } if name.value.eq_ignore_ascii_case(wanted)))
    };
    let mut frozen = Vec::new();
    if taken.contains(&"timezone") && !has("timezone") {
        frozen.push(("timezone", dialect::literal(timezone)));
    }
    if let (true, false, Some(day)) = (taken.contains(&"as_of"), has("as_of"), as_of) {
        frozen.push(("as_of", format!("DATE '{day}'")));
    }
    for (argument, value) in frozen {
        args.args.push(ast::FunctionArg::Named {
            name: Ident::new(argument),
            arg: ast::FunctionArgExpr::Expr(dialect::parse_expression(&value)?),
            operator: ast::FunctionArgOperator::RightArrow,
        });
    }
    Ok(())
}

async fn drop_relations(session: &Session, statement: &ast::Statement) -> Result<Outcome> {
    let ast::Statement::Drop { object_type, if_exists, names, cascade, .. } = statement else {
        return Err(Error::internal("a DROP is a DROP"));
    };
    let (word, is_view) = match object_type {
        ObjectType::Table => ("TABLE", false),
        ObjectType::View => ("VIEW", true),
        other => return Err(Error::not_supported(format!("DROP {other} is not supported"))),
    };
    let names = names.iter().map(name_of).collect::<Result<Vec<_>>>()?;
    names.iter().try_for_each(refuse_reserved)?;
    let warehouse = session.engine().warehouse();
    let mut missing = Vec::new();
    warehouse
        .publish_names(|state| {
            missing.clear();
            let mut changes = BTreeMap::new();
            for name in &names {
                state.refuse_change(name)?;
                if state.is_report(&history_of(name)) {
                    return Err(Error::new(
                        Kind::WrongObjectType,
                        format!("\"{name}\" is an audience"),
                    )
                    .hint("DROP AUDIENCE drops it"));
                }
                match state.relations.get(name) {
                    None if *if_exists => missing.push(name.to_string()),
                    None => {
                        return Err(Error::new(
                            Kind::UndefinedTable,
                            format!("{} \"{name}\" does not exist", word.to_lowercase()),
                        ));
                    }
                    Some(Relation::Table(_)) if !is_view => {
                        changes.insert(name.clone(), Change::Dropped);
                    }
                    Some(Relation::View(_)) if is_view => {
                        changes.insert(name.clone(), Change::Dropped);
                    }
                    Some(other) => {
                        let hint = match other {
                            Relation::Function(_) => "use DROP FUNCTION",
                            _ if is_view => "use DROP TABLE",
                            _ => "use DROP VIEW",
                        };
                        return Err(Error::new(
                            Kind::WrongObjectType,
                            format!("\"{name}\" is not a {}", word.to_lowercase()),
                        )
                        .hint(hint));
                    }
                }
            }
            drop_dependents(state, &mut changes, *cascade)?;
            Ok(changes)
        })
        .await?;
    let tag = format!("DROP {word}");
    if missing.is_empty() {
        return Ok(Outcome::Done(tag));
    }
    let notice =
        format!("{} \"{}\" does not exist, skipping", word.to_lowercase(), missing.join("\", \""));
    Ok(Outcome::Noticed { tag, notice })
}

/// Views that read what is dropped are dropped too, or stand in the way.
///
/// A report that reads it stands in the way, too; with CASCADE it keeps its rows, and its runs fail until what it reads is there again.
pub(super) fn drop_dependents(
    state: &Generation,
    changes: &mut BTreeMap<Name, Change>,
    cascade: bool,
) -> Result<()> {
    let relations = &state.relations;
    let graph = relations.iter().find_map(|(name, relation)| {
        let Relation::Graph(graph) = relation else { return None };
        let read = identity::relation_of(graph)?;
        changes.contains_key(&read).then(|| (name.schema.clone(), read))
    });
    if let Some((graph, dropped)) = graph {
        return Err(Error::new(
            Kind::DependentObjects,
            format!("\"{dropped}\" cannot be dropped: identity graph \"{graph}\" reads it"),
        )
        .hint(format!("DROP IDENTITY GRAPH {graph} first")));
    }
    loop {
        let dependent = relations.iter().find_map(|(name, relation)| {
            let Relation::View(view) = relation else { return None };
            if changes.contains_key(name) {
                return None;
            }
            let read = relations_read(&view.sql);
            let dropped = changes.keys().find(|dropped| read.contains(*dropped))?;
            Some((name.clone(), dropped.clone()))
        });
        match dependent {
            None => break,
            Some((view, _)) if cascade => {
                changes.insert(view, Change::Dropped);
            }
            Some((view, dropped)) => {
                return Err(Error::new(
                    Kind::DependentObjects,
                    format!("\"{dropped}\" cannot be dropped: view \"{view}\" reads it"),
                )
                .hint("drop the view first, or use CASCADE"));
            }
        }
    }
    if cascade {
        return Ok(());
    }
    for (report, definition) in definitions(state)? {
        let is_going = changes.contains_key(&report);
        let read = relations_read(&definition.sql);
        if let Some(dropped) = changes.keys().find(|name| !is_going && read.contains(*name)) {
            return Err(Error::new(
                Kind::DependentObjects,
                format!("\"{dropped}\" cannot be dropped: materialized view \"{report}\" reads it"),
            )
            .hint("drop that first, or use CASCADE: it keeps its rows, and can be refreshed when what it reads is there again"));
        }
    }
    Ok(())
}

/// Arguments of reports that name a relation in a text.
const NAMED_IN_TEXT: [&str; 9] = [
    "audience",
    "advocates",
    "control",
    "costs",
    "customers",
    "levels",
    "rates",
    "scores_from",
    "segment_rules",
];

/// Relations that a view names, the first arguments of table functions and those in texts included.
pub(super) fn relations_read(sql: &str) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    let Ok(query) = dialect::parse_query(sql) else { return found };
    query.each(|node| {
        let Node::Factor(TableFactor::Table { name, args, .. }) = node else { return };
        let relation = match args.as_ref().and_then(|a| a.args.first()) {
            Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(Expr::Identifier(
                ident,
            )))) => ObjectName::from(vec![ident.clone()]),
            Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(
                Expr::CompoundIdentifier(parts),
            ))) => ObjectName::from(parts.clone()),
            _ => name.clone(),
        };
        found.extend(name_of(&relation).ok());
        for arg in args.iter().flat_map(|args| &args.args) {
            if let ast::FunctionArg::Named {
                name,
                arg: ast::FunctionArgExpr::Expr(Expr::Value(value)),
                ..
            } = arg
                && NAMED_IN_TEXT.contains(&name.value.to_lowercase().as_str())
                && let Some(text) = value.value.clone().into_string()
            {
                found.extend(relations_read(&format!("SELECT * FROM {text}")));
            }
        }
    });
    found
}

fn check_columns(table: &Name, schema: &SchemaRef, columns: &[String]) -> Result<()> {
    for (i, column) in columns.iter().enumerate() {
        if schema.index_of(column).is_err() {
            return Err(Error::new(
                Kind::UndefinedColumn,
                format!("column \"{column}\" of relation \"{table}\" does not exist"),
            ));
        }
        if columns[..i].contains(column) {
            return Err(Error::new(
                Kind::DuplicateColumn,
                format!("column \"{column}\" is named twice"),
            ));
        }
    }
    Ok(())
}

async fn run_copy(session: &Session, copy: &CopyStatement) -> Result<Outcome> {
    match &copy.target {
        CopyTarget::Stdin => match &copy.source {
            CopySource::Table(name, columns) => {
                refuse_reserved(name)?;
                let warehouse = session.engine().warehouse();
                let newest = warehouse.newest().await?;
                newest.refuse_rows(name)?;
                match newest.relations.get(name) {
                    Some(Relation::Table(def)) => {
                        // Before the client is asked for data, which it may have none of.
                        let schema = &warehouse.snapshot(def).await?.schema;
                        check_columns(name, schema, columns.as_deref().unwrap_or_default())?;
                        if let Some(key) = &copy.key {
                            key.of(schema)?;
                        }
                        Ok(Outcome::CopyIn(Box::new(copy.clone())))
                    }
                    Some(_) => Err(Error::new(
                        Kind::WrongObjectType,
                        format!("\"{name}\" is not a table; rows go into tables"),
                    )),
                    None => Err(Error::new(
                        Kind::UndefinedTable,
                        format!("relation \"{name}\" does not exist"),
                    )),
                }
            }
            CopySource::Query(_) => {
                Err(Error::new(Kind::Syntax, "syntax error: COPY (query) goes TO, not FROM"))
            }
        },
        CopyTarget::Stdout => {
            let text = match &copy.source {
                CopySource::Query(text) => text.clone(),
                CopySource::Table(name, columns) => {
                    let columns = columns.as_ref().map_or("*".to_owned(), |columns| {
                        columns.iter().map(|c| dialect::quoted(c)).collect::<Vec<_>>().join(", ")
                    });
                    format!(
                        "SELECT {columns} FROM {}.{}",
                        dialect::quoted(&name.schema),
                        dialect::quoted(&name.table)
                    )
                }
            };
            let query = dialect::parse_query(&text).map_err(|e| e.at(None))?;
            match rows(session, ast::Statement::Query(Box::new(query)), &text).await? {
                Outcome::Rows { columns, stream, notices, .. } => {
                    let copy = Box::new(copy.clone());
                    Ok(Outcome::CopyOut { copy, columns, stream, notices })
                }
                _ => Err(Error::internal("a query gives rows")),
            }
        }
        CopyTarget::FromPath(path) => copy_from_path(session, copy, path).await,
        CopyTarget::ToPath(_) => {
            Err(Error::new(Kind::NotAllowed, "COPY cannot write files of the server")
                .hint("COPY ... TO STDOUT, or \\copy in psql, writes on the client's side"))
        }
    }
}

async fn copy_from_path(session: &Session, copy: &CopyStatement, path: &str) -> Result<Outcome> {
    let CopySource::Table(name, columns) = &copy.source else {
        return Err(Error::new(Kind::Syntax, "syntax error: COPY (query) goes TO, not FROM"));
    };
    if columns.is_some() {
        return Err(Error::not_supported("COPY t (columns) FROM 'path' is not supported")
            .hint("a file's header names its columns; COPY t (columns) FROM STDIN takes others"));
    }
    refuse_reserved(name)?;
    let config = session.engine().config();
    let refused = || {
        let error = Error::new(Kind::NotAllowed, "COPY may not read that path");
        if config.load.roots.is_empty() {
            error
                .detail("load.roots in clientele.toml lists no folder")
                .hint("use COPY ... FROM STDIN, \\copy in psql, or clientele load")
        } else {
            error.detail("it is not below a folder of load.roots in clientele.toml")
        }
    };
    // Links and dots are resolved before the path is compared, and what does not resolve is not told apart.
    let real = std::path::Path::new(path).canonicalize().map_err(|_| refused())?;
    let is_below =
        |root: &std::path::PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if !config.load.roots.iter().any(is_below) {
        return Err(refused());
    }
    let csv = match &copy.format {
        ingest::CopyFormat::Csv(options) => options.clone(),
        ingest::CopyFormat::Text { .. } => ingest::CsvOptions::default(),
    };
    let files = ingest::expand(&[real.display().to_string()])?;
    let max_bad = copy.max_bad.map_or_else(|| MaxBad::parse(&config.load.max_bad), Ok)?;
    let request = LoadRequest {
        table: name.clone(),
        files,
        format: None,
        csv,
        max_bad,
        personal: vec![],
        key: copy.key.clone(),
        adds_columns: false,
        user: session.user().to_owned(),
    };
    let loaded = ingest::load(session.engine().warehouse(), &request, &Silent).await?;
    let rows: u64 = loaded.iter().map(|l| l.rows).sum();
    let tag = format!("COPY {rows}");
    let quarantined: u64 = loaded.iter().map(|l| l.quarantined).sum();
    if loaded.iter().all(|l| l.was_loaded) {
        return Ok(Outcome::Noticed {
            tag,
            notice: "already loaded: the table has these files' rows".to_owned(),
        });
    }
    Ok(if quarantined > 0 {
        Outcome::Noticed {
            tag,
            notice: format!("{quarantined} rows did not fit and are in system.quarantine"),
        }
    } else {
        Outcome::Done(tag)
    })
}
