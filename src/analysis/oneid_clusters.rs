//! `oneid_clusters(t, ids => ARRAY['phone', 'email'])`: which rows of any relation hang together by what they share.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use clientele_udfs::identity::clusters::Clusters;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, ToDFSchema, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, cast,
};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;

use super::arguments::Arguments;
use super::{Columns, misuse};
use crate::error::{Error, Kind};
use crate::workspace::Workspace;

/// The column that is added.
const COLUMN: &str = "cluster_id";

/// The key of a warehouse's hashes, which no plan shows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Secret(pub(super) [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The rows of `input` with the id of their component.
pub(super) fn plan(
    mut arguments: Arguments,
    input: LogicalPlan,
    secret: &Secret,
) -> Result<LogicalPlan> {
    const FUNCTION: &str = "oneid_clusters";
    // Of a parameter that has no value yet, none: the columns of the answer are the same for all.
    let given = arguments.texts_so_far("ids")?;
    let max_records = arguments.number("max_records", 1..=i64::from(u32::MAX))?;
    arguments.finish()?;
    let Some(given) = given else {
        return Err(misuse(FUNCTION, "the columns of identifiers are missing")
            .hint("oneid_clusters(t, ids => ARRAY['phone', 'email', 'device_id AS device'])")
            .into());
    };
    let (mut types, mut values) = (Vec::new(), Vec::new());
    for id in &given {
        // As in IDS (phone, device_id AS device): a column has the name of its type, or says which it is.
        let (column, id_type) = id
            .split_once(" AS ")
            .or_else(|| id.split_once(" as "))
            .map_or((id.as_str(), id.as_str()), |(column, id_type)| {
                (column.trim(), id_type.trim())
            });
        let at = Columns { schema: input.schema().as_ref() }.place(FUNCTION, "ids", column)?;
        match input.schema().field(at).data_type() {
            DataType::Utf8
            | DataType::Utf8View
            | DataType::LargeUtf8
            | DataType::Dictionary(..)
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64 => {}
            other => {
                return Err(Error::new(
                    Kind::DatatypeMismatch,
                    format!("{FUNCTION}: column \"{column}\" is {other}; identifiers are text or whole numbers"),
                )
                .into());
            }
        }
        let field = input.schema().qualified_field(at);
        values.push(cast(Expr::Column(field.into()), DataType::Utf8));
        types.push(id_type.to_owned());
    }
    let node = ClustersNode::try_new(
        input,
        values,
        types,
        max_records.and_then(|most| u32::try_from(most).ok()),
        secret.clone(),
    )?;
    Ok(LogicalPlan::Extension(datafusion::logical_expr::Extension { node: Arc::new(node) }))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ClustersNode {
    input: LogicalPlan,
    /// The identifiers as text.
    values: Vec<Expr>,
    types: Vec<String>,
    max_records: Option<u32>,
    secret: Secret,
    schema: DFSchemaRef,
}

impl ClustersNode {
    fn try_new(
        input: LogicalPlan,
        values: Vec<Expr>,
        types: Vec<String>,
        max_records: Option<u32>,
        secret: Secret,
    ) -> Result<Self> {
        let schema = with_column(input.schema().as_arrow())?.to_dfschema_ref()?;
        Ok(Self { input, values, types, max_records, secret, schema })
    }
}

fn with_column(rows: &Schema) -> Result<SchemaRef> {
    if rows.field_with_name(COLUMN).is_ok() {
        return Err(misuse(
            "oneid_clusters",
            format!("the relation has a column {COLUMN} already"),
        )
        .hint("name the columns of a query in brackets, and leave it out")
        .into());
    }
    let mut fields = rows.fields().to_vec();
    fields.push(Arc::new(Field::new(COLUMN, DataType::Int64, false)));
    Ok(Arc::new(Schema::new(fields)))
}

impl Hash for ClustersNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, &self.values, &self.types, self.max_records).hash(state);
    }
}

impl PartialOrd for ClustersNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for ClustersNode {
    fn name(&self) -> &str {
        "Clusters"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.values.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clusters: ids=[{}]", self.types.join(", "))
    }

    /// Columns that nobody asked for are not held.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let of_input = self.input.schema();
        let mut needed: Vec<usize> =
            output_columns.iter().copied().filter(|at| *at < of_input.fields().len()).collect();
        for column in self.values.iter().flat_map(Expr::column_refs) {
            needed.push(of_input.maybe_index_of_column(column)?);
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[_; 1]>::try_from(inputs) else {
            return internal_err!("clusters have one input");
        };
        let (types, secret) = (self.types.clone(), self.secret.clone());
        Self::try_new(input, exprs, types, self.max_records, secret)
    }
}

/// Plans what the engine does not know.
#[derive(Debug)]
pub struct OwnNodes;

#[async_trait]
impl QueryPlanner for OwnNodes {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Self)]);
        planner.create_physical_plan(plan, session).await
    }
}

#[async_trait]
impl ExtensionPlanner for OwnNodes {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<ClustersNode>() else { return Ok(None) };
        let ([logical], [input]) = (logical_inputs, physical_inputs) else {
            return internal_err!("clusters have one input");
        };
        let physical =
            |value: &Expr| planner.create_physical_expr(value, logical.schema(), session, context);
        let values = node.values.iter().map(physical).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(node.schema.as_arrow().clone());
        let exec = ClustersExec::new(Arc::clone(input), values, node, schema);
        Ok(Some(Arc::new(exec)))
    }
}

/// Takes all rows of its input, and gives them with the ids of their components.
///
/// The rows are held meanwhile, in memory of the engine's pool.
#[derive(Debug)]
struct ClustersExec {
    input: Arc<dyn ExecutionPlan>,
    values: Vec<Arc<dyn PhysicalExpr>>,
    types: Vec<String>,
    max_records: Option<u32>,
    secret: Secret,
    schema: SchemaRef,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl ClustersExec {
    fn new(
        input: Arc<dyn ExecutionPlan>,
        values: Vec<Arc<dyn PhysicalExpr>>,
        node: &ClustersNode,
        schema: SchemaRef,
    ) -> Self {
        Self {
            properties: Arc::new(PlanProperties::new(
                EquivalenceProperties::new(Arc::clone(&schema)),
                Partitioning::UnknownPartitioning(1),
                EmissionType::Final,
                Boundedness::Bounded,
            )),
            input,
            values,
            types: node.types.clone(),
            max_records: node.max_records,
            secret: node.secret.clone(),
            schema,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    fn rebuilt(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[_; 1]>::try_from(children) else {
            return internal_err!("clusters have one input");
        };
        Ok(Arc::new(Self {
            input,
            values: self.values.clone(),
            types: self.types.clone(),
            max_records: self.max_records,
            secret: self.secret.clone(),
            schema: Arc::clone(&self.schema),
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::clone(&self.properties),
        }))
    }
}

impl DisplayAs for ClustersExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClustersExec: ids=[{}]", self.types.join(", "))
    }
}

impl ExecutionPlan for ClustersExec {
    fn name(&self) -> &str {
        "ClustersExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for value in &self.values {
            if f(value)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rebuilt(children)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rebuilt(children)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let memory = MemoryConsumer::new("oneid_clusters").register(context.memory_pool());
        let gathering = Gathering {
            clusters: Clusters::new(&self.secret.0, &self.types, self.max_records),
            values: self.values.clone(),
            rows: Vec::new(),
            row_bytes: 0,
            workspace: Workspace::new(memory, Arc::clone(&context.runtime_env().disk_manager)),
        };
        let (schema, metrics) =
            (Arc::clone(&self.schema), BaselineMetrics::new(&self.metrics, partition));
        let given = async move { gathering.run(input, schema, metrics).await };
        let stream = futures::stream::once(given);
        let stream = futures::TryStreamExt::try_flatten(stream);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }
}

/// Rows on their way to their clusters.
struct Gathering {
    clusters: Clusters,
    values: Vec<Arc<dyn PhysicalExpr>>,
    rows: Vec<RecordBatch>,
    row_bytes: usize,
    workspace: Workspace,
}

impl Gathering {
    async fn run(
        mut self,
        mut input: SendableRecordBatchStream,
        schema: SchemaRef,
        metrics: BaselineMetrics,
    ) -> Result<impl futures::Stream<Item = Result<RecordBatch>>> {
        while let Some(batch) = input.next().await {
            let timer = metrics.elapsed_compute().timer();
            self.take(batch?)?;
            timer.done();
        }
        drop(input);
        // The memory stays reserved until the last row is given.
        let Self { clusters, rows, workspace, .. } = self;
        let compute = metrics.elapsed_compute().clone();
        let ids = tokio::task::spawn_blocking(move || {
            let _timer = compute.timer();
            clusters.ids()
        });
        let ids = ids.await.map_err(|_| {
            DataFusionError::from(Error::internal("oneid_clusters stopped unexpectedly"))
        })??;
        let mut from = 0;
        Ok(futures::stream::iter(rows).map(move |batch| {
            let _held = &workspace;
            let to = from + batch.num_rows();
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(Int64Array::from_iter_values(ids[from..to].iter().copied())));
            from = to;
            metrics.record_output(batch.num_rows());
            Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
        }))
    }

    fn take(&mut self, batch: RecordBatch) -> Result<()> {
        let text = |value: &Arc<dyn PhysicalExpr>| -> Result<StringArray> {
            Ok(value.evaluate(&batch)?.into_array(batch.num_rows())?.as_string::<i32>().clone())
        };
        let mut columns = self.values.iter().map(text).collect::<Result<Vec<_>>>()?;
        if columns.is_empty() {
            columns.push(StringArray::new_null(batch.num_rows()));
        }
        if !self.clusters.add(&columns) {
            return Err(Error::new(
                Kind::LimitExceeded,
                format!("oneid_clusters takes {} rows at most", u32::MAX),
            )
            .into());
        }
        self.row_bytes += batch.get_array_memory_size();
        self.rows.push(batch);
        Ok(self.workspace.fit(&mut self.clusters, self.row_bytes)?)
    }
}
