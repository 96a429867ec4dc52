//! Table functions that return a finished report: relation first, then named arguments.
//!
//! Each report is a parameterised SELECT. The planner hands us the call with the relation unplanned; we learn the
//! relation's columns, check the arguments, write the SELECT over the relation and give it back to the planner, so that
//! the optimizer sees one ordinary query. No report asks the clock.

mod arguments;
mod attribution_report;
mod audiences;
mod btyd_summary;
mod buckets;
mod campaign_report;
mod event_trend;
mod funnel;
mod funnel_report;
mod funnel_trend;
mod funnel_users;
mod lifecycle;
mod membership;
mod oneid_clusters;
mod oneid_profile;
mod paths;
mod retention_matrix;
mod rfm;
mod steps;
mod time_to_convert;
mod trend;

use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::NaiveDate;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Statement, TableAlias, TableFactor,
    Value,
};

use crate::dialect;
use crate::error::{Error, Kind};

use arguments::Arguments;
use oneid_clusters::Secret;

pub use oneid_clusters::OwnNodes;

/// Names of the table functions.
pub const FUNCTIONS: [&str; 25] = [
    "attribution_report",
    "audience_diff",
    "audience_lookalike",
    "audience_portrait",
    "btyd_summary",
    "campaign_report",
    "customer_stage",
    "dormant_trend",
    "event_trend",
    "funnel_report",
    "funnel_trend",
    "funnel_users",
    "member_levels",
    "member_points",
    "oneid_benefits",
    "oneid_clusters",
    "oneid_profile",
    "path_edges",
    "path_top",
    "retention_matrix",
    "rfm",
    "rfm_cuts",
    "rfm_trend",
    "stage_trend",
    "time_to_convert",
];

/// The arguments that a function takes from its session when they are not given.
pub fn session_arguments(function: &str) -> &'static [&'static str] {
    match function {
        "attribution_report" | "dormant_trend" | "funnel_report" | "funnel_users"
        | "path_edges" | "path_top" | "rfm_trend" | "stage_trend" | "time_to_convert" => {
            &["timezone"]
        }
        "btyd_summary" | "customer_stage" | "event_trend" | "funnel_trend" | "retention_matrix"
        | "rfm" | "rfm_cuts" | "member_levels" | "member_points" => &["timezone", "as_of"],
        _ => &[],
    }
}

/// What a call gets from its session when it does not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// The day a report speaks for.
    pub as_of: Option<NaiveDate>,
    /// Zone of days, weeks and months.
    pub timezone: String,
}

/// Plans the table functions of one statement.
#[derive(Debug)]
pub struct Analytics {
    defaults: Defaults,
    secret: Secret,
    calls: AtomicUsize,
}

impl Analytics {
    /// A planner with a session's defaults; `key` is that of the warehouse's hashes.
    pub fn new(defaults: Defaults, key: &[u8; 32]) -> Self {
        Self { defaults, secret: Secret(*key), calls: AtomicUsize::new(0) }
    }
}

impl RelationPlanner for Analytics {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(function) = called(&relation, context) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let (args, alias) = match relation {
            TableFactor::Table { args: Some(args), alias, .. } => (args.args, alias),
            TableFactor::Function { args, alias, .. } => (args, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let call = read_call(function, args, context)?;
        let alias = alias.or_else(|| {
            Some(TableAlias {
                explicit: false,
                name: Ident::new(function),
                columns: vec![],
                at: None,
            })
        });
        if function == "oneid_clusters" {
            let input = context.plan(call.relation)?;
            let arguments = Arguments::new(function, call.named);
            let plan = oneid_clusters::plan(arguments, input, &self.secret)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))));
        }
        let mut arguments = Arguments::new(function, call.named);
        let relation = match arguments.text("identity")? {
            Some(graph) => of_customers(function, call.relation, &graph, context)?,
            None => call.relation,
        };
        let input = context.plan(relation.clone())?;
        let columns = Columns { schema: input.schema().as_ref() };
        let request = Request {
            function,
            relation: format!("(SELECT * FROM {relation})"),
            arguments,
            columns,
            defaults: &self.defaults,
            tag: self.calls.fetch_add(1, Ordering::Relaxed),
        };
        let sql = match function {
            "attribution_report" => attribution_report::select(request)?,
            "audience_diff" => audiences::diff(request)?,
            "audience_lookalike" => audiences::lookalike(request)?,
            "audience_portrait" => audiences::portrait(request)?,
            "btyd_summary" => btyd_summary::select(request)?,
            "campaign_report" => campaign_report::select(request)?,
            "event_trend" => event_trend::select(request)?,
            "funnel_report" => funnel_report::select(request)?,
            "funnel_trend" => funnel_trend::select(request)?,
            "funnel_users" => funnel_users::select(request)?,
            "member_levels" => membership::levels(request)?,
            "member_points" => membership::points(request)?,
            "oneid_benefits" => oneid_profile::benefits(request)?,
            "oneid_profile" => oneid_profile::profile(request)?,
            "path_edges" => paths::edges(request)?,
            "path_top" => paths::tops(request)?,
            "retention_matrix" => retention_matrix::select(request)?,
            "customer_stage" => lifecycle::stage(request)?,
            "dormant_trend" => lifecycle::dormant_trend(request)?,
            "stage_trend" => lifecycle::stage_trend(request)?,
            "rfm_cuts" => rfm::cuts(request)?,
            "rfm_trend" => rfm::moves(request)?,
            "time_to_convert" => time_to_convert::select(request)?,
            _ => rfm::select(request)?,
        };
        let plan = context.plan(derived(&sql)?).map_err(|error| {
            // A place in the text we wrote means nothing in the user's statement.
            Error::from(error).at(None)
        })?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The function of ours that `relation` calls.
fn called(relation: &TableFactor, context: &dyn RelationPlannerContext) -> Option<&'static str> {
    let name = match relation {
        TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name,
        _ => return None,
    };
    let name = context.normalize_ident(name.0.last()?.as_ident()?.clone());
    FUNCTIONS.into_iter().find(|f| *f == name)
}

struct Call {
    relation: TableFactor,
    named: Vec<(String, Expr)>,
}

fn read_call(
    function: &'static str,
    args: Vec<FunctionArg>,
    context: &dyn RelationPlannerContext,
) -> Result<Call> {
    let mut relation = None;
    let mut named = Vec::new();
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
                if relation.is_none() && named.is_empty() =>
            {
                relation = Some(relation_of(function, expr)?);
            }
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                named.push((context.normalize_ident(name), expr));
            }
            other => {
                return Err(misuse(function, format!("argument {other} has no name"))
                    .hint(format!("{function}(relation, name => value, ...)"))
                    .into());
            }
        }
    }
    match relation {
        Some(relation) => Ok(Call { relation, named }),
        None => Err(misuse(function, "the relation is missing")
            .hint(format!("the first argument is a table, a view or a query in brackets: {function}(orders, ...)"))
            .into()),
    }
}

/// The relation that an argument of `function` names.
pub fn relation_of(function: &str, expr: Expr) -> Result<TableFactor> {
    let table = |parts: Vec<Ident>| TableFactor::Table {
        name: ObjectName::from(parts),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    match expr {
        Expr::Subquery(subquery) => {
            Ok(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })
        }
        Expr::Identifier(name) => Ok(table(vec![name])),
        Expr::CompoundIdentifier(parts) => Ok(table(parts)),
        Expr::Nested(inner) => relation_of(function, *inner),
        other => Err(misuse(function, format!("the first argument is {other}, not a relation"))
            .hint("give a table, a view or a query in brackets")
            .into()),
    }
}

/// The rows of `relation` whose record is in the map of identity graph `graph`, with the `one_id` that it has there.
fn of_customers(
    function: &'static str,
    relation: TableFactor,
    graph: &str,
    context: &mut dyn RelationPlannerContext,
) -> Result<TableFactor> {
    let input = context.plan(relation.clone())?;
    let columns = Columns { schema: input.schema().as_ref() };
    if let Some(missing) = ["source", "record_id"].into_iter().find(|name| !columns.has(name)) {
        return Err(misuse(function, format!("identity => '{graph}': the relation has no column {missing}"))
            .hint("records are named by source and record_id; SELECT ... AS source gives another column that name")
            .into());
    }
    let map = format!("{}.map", dialect::quoted(graph));
    if context.plan(derived(&format!("SELECT 1 FROM {map}"))?).is_err() {
        return Err(Error::new(
            Kind::UndefinedObject,
            format!("{function}: identity => '{graph}': there is no such identity graph"),
        )
        .hint("CREATE IDENTITY GRAPH makes one; the demo's is customer")
        .into());
    }
    // Columns are named, for the relation may have a one_id of its own, of another graph or another day.
    let own = columns.names().into_iter().filter(|name| name != "one_id");
    let own = own.map(|name| format!("__r.{}", dialect::quoted(&name)));
    let own = own.collect::<Vec<_>>().join(", ");
    derived(&format!(
        "SELECT {own}, __m.one_id FROM {relation} AS __r JOIN {map} AS __m \
         ON __r.source = __m.source AND __r.record_id = __m.record_id"
    ))
}

/// A query as what stands in FROM.
pub fn derived(sql: &str) -> Result<TableFactor> {
    let statement = dialect::tokenize(sql).and_then(dialect::parse_statement);
    match statement {
        Ok(Statement::Query(subquery)) => {
            Ok(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })
        }
        Ok(_) => Err(Error::internal("a report is not a query").into()),
        Err(error) => Err(error.at(None).into()),
    }
}

fn misuse(function: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(Kind::InvalidParameter, format!("{function}: {problem}"))
}

/// Columns of the relation of a call.
struct Columns<'a> {
    schema: &'a DFSchema,
}

impl Columns<'_> {
    fn has(&self, name: &str) -> bool {
        self.schema.fields().iter().any(|f| f.name() == name)
    }

    fn names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    /// Where the column is that `argument` of `function` names.
    fn place(&self, function: &str, argument: &str, column: &str) -> Result<usize, Error> {
        if let Some(at) = self.schema.fields().iter().position(|field| field.name() == column) {
            return Ok(at);
        }
        let names = self.names();
        let error = Error::new(
            Kind::UndefinedColumn,
            format!("{function}: {argument} => '{column}': the relation has no such column"),
        );
        Err(match crate::error::nearest(column, &names) {
            Some(near) => error.hint(format!("perhaps you mean '{near}'")),
            None => error.detail(format!("its columns: {}", names.join(", "))),
        })
    }

    fn data_type(&self, name: &str) -> Option<&arrow::datatypes::DataType> {
        self.schema.fields().iter().find(|f| f.name() == name).map(|f| f.data_type())
    }
}

/// One call, ready to be written as a SELECT.
struct Request<'a> {
    function: &'static str,
    /// The relation as a derived table, without an alias.
    relation: String,
    arguments: Arguments,
    columns: Columns<'a>,
    defaults: &'a Defaults,
    /// Distinguishes the helper names of several calls in one statement.
    tag: usize,
}

impl Request<'_> {
    /// The columns that name a customer: given, `one_id`, or (source, record_id).
    fn customer(&mut self) -> Result<Vec<String>, Error> {
        if let Some(columns) = self.arguments.texts("customer")? {
            for column in &columns {
                self.existing("customer", column)?;
            }
            return Ok(columns);
        }
        for default in [&["one_id"][..], &["source", "record_id"][..]] {
            if default.iter().all(|c| self.columns.has(c)) {
                return Ok(default.iter().map(|c| (*c).to_owned()).collect());
            }
        }
        Err(misuse(self.function, "the relation has neither one_id nor source and record_id")
            .hint("name the column of the customer: customer => 'customer_id'"))
    }

    /// The column of argument `argument`: given, or the first default that the relation has.
    fn column(
        &mut self,
        argument: &'static str,
        defaults: &[&str],
    ) -> Result<Option<String>, Error> {
        if let Some(column) = self.arguments.text(argument)? {
            self.existing(argument, &column)?;
            return Ok(Some(column));
        }
        Ok(defaults.iter().find(|c| self.columns.has(c)).map(|c| (*c).to_owned()))
    }

    /// As [`Self::column`], for an argument that a report cannot do without.
    fn needed_column(
        &mut self,
        argument: &'static str,
        defaults: &[&str],
    ) -> Result<String, Error> {
        self.column(argument, defaults)?.ok_or_else(|| {
            misuse(self.function, format!("the relation has no column {}", defaults.join(" or ")))
                .detail(format!("its columns: {}", self.columns.names().join(", ")))
                .hint(format!("name the column: {argument} => '...'"))
        })
    }

    /// The column of instants or days: given, or the first of `defaults` that the relation has.
    fn time_column(&mut self, defaults: &[&str]) -> Result<String, Error> {
        use arrow::datatypes::DataType;
        let time = self.needed_column("time", defaults)?;
        match self.columns.data_type(&time) {
            Some(DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => Ok(time),
            _ => Err(misuse(
                self.function,
                format!("time => '{time}': the column is neither a timestamp nor a date"),
            )
            .hint(
                "SELECT ..., n::timestamp AS occurred_at in a query in brackets gives it a type",
            )),
        }
    }

    fn existing(&self, argument: &str, column: &str) -> Result<(), Error> {
        self.columns.place(self.function, argument, column).map(|_| ())
    }

    /// The zone of days, given or the session's, as a literal.
    fn timezone(&mut self) -> Result<String, Error> {
        let zone =
            self.arguments.text("timezone")?.unwrap_or_else(|| self.defaults.timezone.clone());
        if zone.parse::<chrono_tz::Tz>().is_err() {
            return Err(misuse(
                self.function,
                format!("timezone => '{zone}' is not an IANA time zone such as 'Asia/Shanghai'"),
            ));
        }
        Ok(dialect::literal(&zone))
    }

    /// The day the report speaks for: given, or the session's; an SQL expression.
    fn as_of(&mut self) -> Result<Option<String>, Error> {
        if let Some(expr) = self.arguments.expression("as_of") {
            if matches!(&expr, Expr::Value(value) if matches!(value.value, Value::Number(..))) {
                return Err(misuse(
                    self.function,
                    format!("as_of => {expr}: a date such as '2011-12-09' is needed"),
                ));
            }
            self.arguments.day_or_expression("as_of", &expr)?;
            return Ok(Some(format!("CAST({expr} AS DATE)")));
        }
        Ok(self.defaults.as_of.map(|day| format!("DATE '{day}'")))
    }
}

/// `a, b` as quoted columns.
fn column_list(columns: &[String]) -> String {
    columns.iter().map(|c| dialect::quoted(c)).collect::<Vec<_>>().join(", ")
}

/// A condition that two relations speak of the same customer.
fn same_customer(columns: &[String], left: &str, right: &str) -> String {
    let same = columns.iter().map(|c| format!("{left}.{0} = {right}.{0}", dialect::quoted(c)));
    same.collect::<Vec<_>>().join(" AND ")
}

/// The name of a relation, with or without its schema, as SQL.
fn relation_name(name: &str) -> String {
    name.split('.').map(dialect::quoted).collect::<Vec<_>>().join(".")
}

/// A condition, after others, that a day lies between two, both included.
fn within(day: &str, from: Option<Expr>, to: Option<Expr>) -> String {
    let from = from.map(|from| format!(" AND {day} >= CAST({from} AS DATE)"));
    let to = to.map(|to| format!(" AND {day} <= CAST({to} AS DATE)"));
    from.into_iter().chain(to).collect()
}

/// A condition that every customer column has a value.
fn all_known(columns: &[String]) -> String {
    columns
        .iter()
        .map(|c| format!("{} IS NOT NULL", dialect::quoted(c)))
        .collect::<Vec<_>>()
        .join(" AND ")
}
