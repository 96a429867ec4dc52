//! The only maker of sessions: functions, catalog, settings, memory and time in one place.
//!
//! An [`Engine`] is shared by every connection; a [`Session`] belongs to one. A [`Planning`] belongs to one statement: it
//! holds the pinned catalog and answers the SQL planner from memory.

mod bounded;
mod customers;
mod elements;
mod functions;
mod graphs;
mod headroom;
mod in_order;
mod key_order;
mod kinds;
mod meaning;
mod operators;
mod runs;
mod self_check;
mod settings;
pub mod stop;
mod types;
mod yielding;
mod zones;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::common::{TableReference, plan_datafusion_err};
use datafusion::config::{ConfigOptions, Dialect as ConfigDialect, SpillCompression};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::context::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::planner::{ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{ContextProvider, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use object_store::ObjectStore;
use url::Url;

use crate::analysis::{Analytics, Defaults, OwnNodes};
use crate::catalog::{About, DATABASE, DEFAULT_SCHEMA, Meaning, Past, Pinned, words_of};
use crate::config::{Config, processors};
use crate::dialect;
use crate::error::{Error, Kind, Result};
use crate::identity;
use crate::scan::SnapshotTable;
use crate::store::{DATA_URL, Name, Pin, Relation, TableSnapshot, ViewDef, Warehouse};
use crate::workspace::Workspace;

use self::meaning::Semantics;
use self::operators::Operators;
use self::stop::Stop;
use self::zones::Zones;

pub use runs::{Place as RunPlace, Runs};
pub use settings::{REPORTED, Settings, is_on};

/// What every connection shares.
pub struct Engine {
    warehouse: Arc<Warehouse>,
    config: Config,
    base: SessionState,
    runs: Arc<Runs>,
}

impl Engine {
    /// An engine over `warehouse` under the limits of `config`.
    pub fn new(warehouse: Arc<Warehouse>, config: Config) -> Result<Arc<Self>> {
        warehouse.configure(&config.storage);
        let most = NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN);
        let pool = TrackConsumersPool::new(headroom::Headroom::new(config.memory_bytes()), most);
        let spill = match &config.memory.spill_dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|error| {
                    let told =
                        format!("memory.spill_dir: {} cannot be made: {error}", dir.display());
                    Error::new(Kind::Config, told)
                })?;
                DiskManagerMode::Directories(vec![dir.clone()])
            }
            None => DiskManagerMode::OsTmpDirectory,
        };
        let spill = DiskManagerBuilder::default()
            .with_mode(spill)
            .with_max_temp_directory_size(config.spill_bytes());
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(spill)
            .with_object_store_registry(Arc::new(OnlyTheWarehouse {
                store: Arc::clone(warehouse.store()),
            }))
            .build_arc()?;
        let mut state = SessionStateBuilder::new()
            .with_config(session_config())
            .with_runtime_env(runtime)
            .with_default_features()
            .with_type_planner(Arc::new(types::PgTypes))
            .with_query_planner(Arc::new(OwnNodes))
            .with_optimizer_rule(Arc::new(customers::KnownCustomers))
            .with_optimizer_rule(Arc::new(key_order::KeysInOrder))
            .with_physical_optimizer_rule(Arc::new(in_order::GatherInOrder))
            .with_physical_optimizer_rule(Arc::new(yielding::YieldAfterJoins))
            .build();
        register_functions(&mut state, &warehouse)?;
        let runs = Runs::new(config.reports_bytes());
        Ok(Arc::new(Self { warehouse, config, base: state, runs }))
    }

    /// The warehouse.
    pub fn warehouse(&self) -> &Arc<Warehouse> {
        &self.warehouse
    }

    /// Bytes that queries hold now.
    pub fn memory_reserved(&self) -> usize {
        self.base.runtime_env().memory_pool.reserved()
    }

    /// Memory of the engine's, for work of the current statement that is not a query: refused when there is no more, and gone
    /// with the statement.
    pub fn memory(&self, what: &str) -> MemoryReservation {
        let pool = Stop::current().memory(&self.base.runtime_env().memory_pool);
        MemoryConsumer::new(what).register(&pool)
    }

    /// The same with the folder of temporary files, for the resolution of identities.
    pub fn workspace(&self, what: &str) -> Workspace {
        Workspace::new(self.memory(what), Arc::clone(&self.base.runtime_env().disk_manager))
    }

    /// Reports that are being computed.
    pub fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A session for `user`.
    pub fn session(self: &Arc<Self>, user: &str) -> Session {
        Session {
            engine: Arc::clone(self),
            user: user.to_owned(),
            settings: Arc::new(Mutex::new(Settings::new(self.config.statement_timeout()))),
            staged: Mutex::default(),
        }
    }
}

fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(processors().max(2))
        .with_information_schema(false)
        .with_default_catalog_and_schema(DATABASE, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    options.sql_parser.dialect = ConfigDialect::PostgreSQL;
    options.sql_parser.collect_spans = true;
    // 1.5 is numeric in PostgreSQL; money must not become a float on its way in.
    options.sql_parser.parse_float_as_decimal = true;
    options.execution.time_zone = Some("UTC".into());
    // Late materialisation: only rows that pass the filter are decoded (performance.md section 6).
    options.execution.parquet.pushdown_filters = true;
    // What is spilled is written and read once: fewer bytes are worth the little that packing them costs.
    options.execution.spill_compression = SpillCompression::Lz4Frame;
    options.optimizer.repartition_file_min_size = 1 << 20;
    // Buckets of customers serve any grouping that is finer, however few they are; and nothing tears them apart.
    options.optimizer.subset_repartition_threshold = 1;
    options.optimizer.enable_round_robin_repartition = false;
    config
}

/// Functions of the engine that would do harm: they make arrays of any length outside of the memory limit.
const LEFT_OUT: [&str; 2] = ["generate_series", "range"];

fn register_functions(state: &mut SessionState, warehouse: &Arc<Warehouse>) -> Result<()> {
    use datafusion::execution::FunctionRegistry;
    // Ours take the place of the engine's where both have a name: to_char and its kin take PostgreSQL's templates.
    for udf in clientele_udfs::all_udfs() {
        state.register_udf(udf)?;
    }
    for udf in bounded::bounded_functions() {
        state.register_udf(Arc::new(udf))?;
    }
    for udf in functions::fixed_functions() {
        state.register_udf(Arc::new(udf))?;
    }
    state.register_udf(Arc::new(functions::oneid_hash(*warehouse.key())))?;
    graphs::register(state, warehouse);
    state.register_udtf("self_check", Arc::new(self_check::SelfCheck));
    for udaf in clientele_udfs::all_udafs() {
        state.register_udaf(udaf)?;
    }
    for udwf in clientele_udfs::all_udwfs() {
        state.register_udwf(udwf)?;
    }
    for name in LEFT_OUT {
        state.deregister_udf(name)?;
    }
    Ok(())
}

/// Resolves the warehouse's own URL and nothing else: no path of this machine, no host of the network.
#[derive(Debug)]
struct OnlyTheWarehouse {
    store: Arc<dyn ObjectStore>,
}

impl ObjectStoreRegistry for OnlyTheWarehouse {
    fn register_store(
        &self,
        _url: &Url,
        _store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> EngineResult<Arc<dyn ObjectStore>> {
        if DATA_URL.trim_end_matches('/') == url.as_str().trim_end_matches('/') {
            return Ok(Arc::clone(&self.store));
        }
        Err(Error::new(Kind::NotAllowed, "files outside the warehouse cannot be read by a query")
            .into())
    }
}

/// One connection's state: who it is and what it has SET.
pub struct Session {
    engine: Arc<Engine>,
    user: String,
    settings: Arc<Mutex<Settings>>,
    /// A relation that its statements see and nobody else does.
    staged: Mutex<Option<(Name, Arc<TableSnapshot>)>>,
}

impl Session {
    /// What the connection shares with the others.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// A copy of the settings as they are now.
    pub fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the settings.
    pub fn with_settings<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        change(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes rows that are not published a relation of this session's statements.
    pub fn stage(&self, name: Name, rows: Arc<TableSnapshot>) {
        *self.staged.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, rows));
    }

    /// Pins the newest published state for one statement, and what it reads of the past, and makes it ready to be planned.
    pub async fn planning(&self, sql: &str, past: &[Past]) -> Result<Planning> {
        let words = words_of(sql);
        let settings = self.settings();
        let about = About {
            user: self.user.clone(),
            settings: if words.contains("pg_settings") { settings.all() } else { Vec::new() },
            functions: if words.contains("pg_proc") { self.function_names() } else { Vec::new() },
            running: self.engine.runs.running(),
            unwritten: self.engine.runs.unwritten(),
        };
        let pin = Pin::new(&self.engine.warehouse, !past.is_empty());
        let mut pinned = Pinned::load(&self.engine.warehouse, &words, past, about).await?;
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((name, rows)) = staged {
            pinned.stage(name, rows);
        }
        let is_lenient = Pinned::wants_catalogue(&words);
        let mut planning = self.plan_over(pinned, &settings, is_lenient, pin)?;
        if is_lenient {
            planning.note_view_schemas();
        }
        Ok(planning)
    }

    fn plan_over(
        &self,
        pinned: Pinned,
        settings: &Settings,
        is_lenient: bool,
        pin: Pin,
    ) -> Result<Planning> {
        use datafusion::execution::FunctionRegistry;
        let mut state = self.engine.base.clone();
        // Stable functions such as now() are folded to the start of the statement.
        state.mark_start_execution();
        let pinned = Arc::new(pinned);
        state.register_udf(Arc::new(functions::set_config(&self.settings)))?;
        for udf in functions::session_functions(&self.user, settings, &pinned) {
            state.register_udf(Arc::new(udf))?;
        }
        let zones = Arc::new(Zones::new(settings.timezone()));
        let operators = Operators { zones: Arc::clone(&zones), is_lenient };
        let mut expr_planners: Vec<Arc<dyn ExprPlanner>> =
            vec![Arc::new(operators), Arc::new(elements::Elements)];
        expr_planners.extend(state.expr_planners().iter().map(Arc::clone));
        let defaults = Defaults { as_of: settings.as_of(), timezone: settings.timezone() };
        let of_views = Defaults { as_of: None, timezone: "UTC".to_owned() };
        let key = self.engine.warehouse.key();
        Ok(Planning {
            state,
            pinned,
            pin: Arc::new(pin),
            relation_planners: vec![Arc::new(Analytics::new(defaults, key))],
            view_planners: vec![Arc::new(Analytics::new(of_views, key))],
            expr_planners,
            zones,
            is_lenient,
            views_open: Mutex::default(),
            empty_still: Mutex::default(),
        })
    }

    fn function_names(&self) -> Vec<String> {
        let state = &self.engine.base;
        let names: BTreeSet<&String> = state
            .scalar_functions()
            .keys()
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys())
            .collect();
        let tables = crate::analysis::FUNCTIONS.iter().map(|f| (*f).to_owned());
        names.into_iter().cloned().chain(tables).collect()
    }
}

/// One statement's view of the world.
pub struct Planning {
    state: SessionState,
    pinned: Arc<Pinned>,
    /// Keeps the files of what is pinned.
    pin: Arc<Pin>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    /// Within a view the session's settings do not count: those that matter were folded in when it was made.
    view_planners: Vec<Arc<dyn RelationPlanner>>,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    zones: Arc<Zones>,
    /// Whether this is a client's query of the catalogue, which may compare what it likes.
    is_lenient: bool,
    /// Views that are being planned, so that one that reads itself is found out.
    views_open: Mutex<Vec<String>>,
    /// What is said about a report among what was planned that has no rows yet: it can be planned, and not be read.
    empty_still: Mutex<Option<Error>>,
}

/// What a plan that was run has read.
pub struct Measured {
    plan: Arc<dyn ExecutionPlan>,
}

impl Measured {
    /// Bytes of files, so far.
    pub fn bytes_read(&self) -> u64 {
        fn below(plan: &Arc<dyn ExecutionPlan>) -> usize {
            let own = plan.metrics().and_then(|all| all.sum_by_name("bytes_scanned"));
            let own = own.map_or(0, |value| value.as_usize());
            own + plan.children().into_iter().map(below).sum::<usize>()
        }
        below(&self.plan) as u64
    }
}

/// Deepest nesting of views in views.
const VIEW_DEPTH_MAX: usize = 32;

impl Planning {
    /// The pinned state.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// Plans a statement; `parameters` are declared types of `$1`, `$2`, ..., where known.
    pub fn plan(
        &self,
        statement: ast::Statement,
        parameters: Vec<Option<FieldRef>>,
    ) -> Result<LogicalPlan> {
        let mut context = PlannerContext::new().with_prepare_param_data_types(parameters);
        let plan =
            SqlToRel::new(self).sql_statement_to_plan_with_context(statement, &mut context)?;
        self.understood(plan)
    }

    /// A plan whose expressions mean what PostgreSQL means by them.
    fn understood(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let zone = self.zones.current();
        Ok(Semantics { zone: &zone, is_lenient: self.is_lenient }.apply(plan)?)
    }

    /// A plan of rows that go into columns of `types`.
    pub fn inserted(&self, plan: LogicalPlan, types: &[DataType]) -> Result<LogicalPlan> {
        use datafusion::logical_expr::LogicalPlanBuilder;
        let columns = plan.schema().columns();
        let froms = plan.schema().fields().iter().map(|f| f.data_type().clone());
        let cast = |((column, from), to): ((datafusion::common::Column, DataType), &DataType)| {
            let name = column.name.clone();
            meaning::inserted(Expr::Column(column), &from, to).alias(name)
        };
        let cast: Vec<Expr> = columns.into_iter().zip(froms).zip(types).map(cast).collect();
        self.understood(LogicalPlanBuilder::from(plan).project(cast)?.build()?)
    }

    /// Plans a query.
    pub fn plan_query(&self, query: ast::Query) -> Result<LogicalPlan> {
        self.plan(ast::Statement::Query(Box::new(query)), Vec::new())
    }

    /// The rows of a table whose first one of `columns`, of whole numbers, is one of `numbers`, without a plan.
    pub async fn seek(
        &self,
        table: &Name,
        numbers: &[i64],
        columns: &[&str],
    ) -> Result<Vec<RecordBatch>> {
        let reference = TableReference::partial(table.schema.as_str(), table.table.as_str());
        if let Some(error) = self.pinned.damage(&reference) {
            return Err(error.clone());
        }
        let Some(snapshot) = self.pinned.snapshot(table) else {
            return Err(Error::internal("a table of a graph is not there"));
        };
        let table = SnapshotTable::new(Arc::clone(snapshot));
        Ok(table.seek(self.state.runtime_env(), numbers, columns).await?)
    }

    /// Runs a plan. Rows come as they are made.
    pub async fn run(&self, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
        Ok(self.run_measured(plan).await?.0)
    }

    /// As [`Self::run`], with the means to say afterwards how much was read.
    pub async fn run_measured(
        &self,
        plan: &LogicalPlan,
    ) -> Result<(SendableRecordBatchStream, Measured)> {
        let empty_still = self.empty_still.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(error) = empty_still {
            return Err(error);
        }
        let physical = self.state.create_physical_plan(plan).await?;
        let measured = Measured { plan: Arc::clone(&physical) };
        let context = Stop::current().bounds(TaskContext::from(&self.state));
        let stream = execute_stream(physical, context)?;
        let (schema, pin) = (stream.schema(), Arc::clone(&self.pin));
        let held = stream.inspect(move |_| {
            // The stream holds the pin for as long as it lives.
            let _ = &pin;
        });
        Ok((Box::pin(RecordBatchStreamAdapter::new(schema, held)), measured))
    }

    /// A plan's columns after optimisation would have run; types are final.
    pub fn analyzed(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let options = self.state.config_options();
        Ok(self.state.analyzer().execute_and_check(plan.clone(), options, |_, _| {})?)
    }

    /// The state, for statements that need the engine itself.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Views that cannot be planned, where the statement asks for the catalogues.
    pub fn broken_views(&self) -> BTreeSet<Name> {
        let relations = self.pinned.relations().iter();
        let is_broken = |(name, relation): &(&Name, &Relation)| {
            matches!(relation, Relation::View(_)) && self.pinned.view_schema(name).is_none()
        };
        relations.filter(is_broken).map(|(name, _)| name.clone()).collect()
    }

    fn note_view_schemas(&mut self) {
        let views: Vec<(Name, ViewDef)> = self
            .pinned
            .relations()
            .iter()
            .filter_map(|(name, relation)| match relation {
                Relation::View(view) => Some((name.clone(), view.clone())),
                _ => None,
            })
            .collect();
        let mut pinned = Pinned::clone(&self.pinned);
        for (name, view) in views {
            // A view whose tables are gone keeps its place in the catalogue, without columns.
            if let Ok(table) = self.view_table(&name.to_string(), &view) {
                pinned.set_view_schema(name, table.schema());
            }
        }
        self.pinned = Arc::new(pinned);
    }

    fn view_table(&self, name: &str, view: &ViewDef) -> EngineResult<Arc<dyn TableProvider>> {
        let _open = self.open_view(name, view.timezone.clone())?;
        let query = dialect::parse_query(&view.sql).map_err(DataFusionError::from)?;
        let expanded = identity::expand_view(self.pinned.generation(), query);
        let mut plan = expanded.and_then(|query| self.plan_query(query)).map_err(|error| {
            // A place in the view's text means nothing in the statement's.
            DataFusionError::from(error.at(None)).context(format!("view {name:?}"))
        })?;
        if !view.columns.is_empty() {
            plan = renamed(plan, &view.columns)?;
        }
        Ok(Arc::new(ViewTable::new(plan, Some(view.sql.clone()))))
    }

    fn open_view(&self, name: &str, zone: Option<String>) -> EngineResult<OpenView<'_>> {
        let mut open = self.views_open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.iter().any(|v| v == name) || open.len() >= VIEW_DEPTH_MAX {
            let error = Error::new(
                Kind::TooComplex,
                format!("view {name:?} reads itself, or views are nested too deeply"),
            );
            return Err(error.into());
        }
        open.push(name.to_owned());
        self.zones.enter(zone.unwrap_or_else(|| "UTC".to_owned()));
        Ok(OpenView { planning: self })
    }
}

/// A view stays open while its query is planned.
struct OpenView<'a> {
    planning: &'a Planning,
}

impl Drop for OpenView<'_> {
    fn drop(&mut self) {
        self.planning.zones.leave();
        self.planning.views_open.lock().unwrap_or_else(PoisonError::into_inner).pop();
    }
}

/// Times as the engine's series take them, and a step that is a bare text as an interval.
fn series_arguments(args: Vec<Expr>) -> EngineResult<Vec<Expr>> {
    use arrow::datatypes::{IntervalUnit, TimeUnit};
    use datafusion::common::ScalarValue;
    let is_time = |arg: &Expr| {
        matches!(
            arg,
            Expr::Literal(
                ScalarValue::TimestampMicrosecond(..)
                    | ScalarValue::TimestampNanosecond(..)
                    | ScalarValue::Date32(_),
                _
            )
        )
    };
    if !args.first().is_some_and(is_time) {
        // The engine's series are of BIGINT.
        let widened = |arg: Expr| match arg {
            Expr::Literal(value, metadata) if value.data_type().is_integer() => {
                Ok(Expr::Literal(value.cast_to(&DataType::Int64)?, metadata))
            }
            other => Ok(other),
        };
        return args.into_iter().map(widened).collect();
    }
    let as_taken = |arg: Expr| match arg {
        Expr::Literal(value @ ScalarValue::TimestampMicrosecond(..), metadata) => {
            let zone = match value.data_type() {
                DataType::Timestamp(_, zone) => zone,
                _ => None,
            };
            let nanos = DataType::Timestamp(TimeUnit::Nanosecond, zone);
            Ok(Expr::Literal(value.cast_to(&nanos)?, metadata))
        }
        Expr::Literal(value, metadata) if value.try_as_str().is_some() => {
            let span = DataType::Interval(IntervalUnit::MonthDayNano);
            Ok(Expr::Literal(value.cast_to(&span)?, metadata))
        }
        other => Ok(other),
    };
    args.into_iter().map(as_taken).collect()
}

fn renamed(plan: LogicalPlan, names: &[String]) -> EngineResult<LogicalPlan> {
    use datafusion::logical_expr::LogicalPlanBuilder;
    let columns = plan.schema().columns();
    if names.len() > columns.len() {
        return Err(plan_datafusion_err!(
            "the view has {} columns, {} names are given",
            columns.len(),
            names.len()
        ));
    }
    let named = columns.into_iter().enumerate().map(|(i, column)| {
        let name = names.get(i).cloned().unwrap_or_else(|| column.name.clone());
        Expr::Column(column).alias(name)
    });
    let named: Vec<Expr> = named.collect();
    LogicalPlanBuilder::from(plan).project(named)?.build()
}

impl ContextProvider for Planning {
    fn get_table_source(&self, name: TableReference) -> EngineResult<Arc<dyn TableSource>> {
        if let Err(error) = self.pinned.refuse_unpopulated(&name) {
            self.empty_still.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        match self.pinned.meaning(&name) {
            Some(Meaning::Table(table)) => Ok(provider_as_source(table)),
            Some(Meaning::View(view)) => {
                Ok(provider_as_source(self.view_table(name.table(), &view)?))
            }
            None => match self.pinned.damage(&name) {
                Some(error) => Err(error.clone().into()),
                None => Err(plan_datafusion_err!("table '{name}' not found")),
            },
        }
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> EngineResult<Arc<dyn TableSource>> {
        use datafusion::common::DFSchema;
        use datafusion::optimizer::simplify_expressions::ExprSimplifier;
        let function = self.state.table_functions().get(name).cloned().ok_or_else(|| {
            DataFusionError::from(Error::new(
                Kind::UndefinedFunction,
                format!("function {name} does not exist as a table"),
            ))
        })?;
        let schema = Arc::new(DFSchema::empty());
        let context = datafusion::logical_expr::simplify::SimplifyContext::builder()
            .with_schema(Arc::clone(&schema))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let simplify = |arg: Expr| simplifier.simplify(simplifier.coerce(arg, &schema)?);
        let args = args.into_iter().map(simplify).collect::<EngineResult<Vec<_>>>()?;
        let args = series_arguments(args)?;
        let provider =
            function.create_table_provider_with_args(TableFunctionArgs::new(&args, &self.state))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> EngineResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        let is_in_view = !self.views_open.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if is_in_view { &self.view_planners } else { &self.relation_planners }
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(types::PgTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
