//! Rows that lie anywhere, put into the buckets of a clustered table and into its order.

use std::fmt;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, ScalarFunctionExpr,
};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// Sends rows to their buckets and sorts them there.
///
/// It is the engine's own repartitioning and sort, which spills, in a node of ours: the engine takes shuffles out of a plan and
/// puts others in as it sees fit, into as many partitions as it has processors, and here there must be as many as buckets.
#[derive(Debug)]
pub(super) struct InBucketsExec {
    rows: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    buckets: usize,
    ordering: LexOrdering,
    sorted: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl InBucketsExec {
    pub(super) fn try_new(
        rows: Arc<dyn ExecutionPlan>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        buckets: usize,
        ordering: LexOrdering,
    ) -> Result<Self> {
        let partitioning = Partitioning::Hash(keys.clone(), buckets);
        let mut equivalences = EquivalenceProperties::new(rows.schema());
        equivalences.add_ordering(ordering.iter().cloned());
        let properties = PlanProperties::new(
            equivalences,
            partitioning.clone(),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let owned = OwnTexts::of(Arc::clone(&rows))?;
        let parts = RepartitionExec::try_new(owned, partitioning)?;
        let sorted = SortExec::new(ordering.clone(), Arc::new(parts));
        let sorted = Arc::new(sorted.with_preserve_partitioning(true));
        Ok(Self { rows, keys, buckets, ordering, sorted, properties: Arc::new(properties) })
    }

    fn rebuilt(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([rows]) = <[_; 1]>::try_from(children) else {
            return internal_err!("rows go into buckets from one child");
        };
        let (keys, ordering) = (self.keys.clone(), self.ordering.clone());
        Ok(Arc::new(Self::try_new(rows, keys, self.buckets, ordering)?))
    }
}

/// Gives each batch texts of its own.
///
/// A view of a text keeps the page or the table that it was read from: a batch of a join holds hundreds of megabytes for a few
/// kilobytes, and a sort, which counts them, finds no room for it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OwnTexts(Signature);

impl OwnTexts {
    fn of(rows: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let udf = Arc::new(ScalarUDF::from(Self(Signature::any(1, Volatility::Immutable))));
        let options = Arc::new(ConfigOptions::default());
        let schema = rows.schema();
        let each = schema.fields().iter().enumerate().map(|(at, field)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), at));
            let (udf, options) = (Arc::clone(&udf), Arc::clone(&options));
            let expr: Arc<dyn PhysicalExpr> = match field.data_type() {
                DataType::Utf8View => Arc::new(ScalarFunctionExpr::try_new(
                    udf,
                    vec![column],
                    schema.as_ref(),
                    options,
                )?),
                _ => column,
            };
            Ok(ProjectionExpr::new(expr, field.name().clone()))
        });
        let each = each.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(each, rows)?))
    }
}

impl ScalarUDFImpl for OwnTexts {
    fn name(&self) -> &str {
        "own_texts"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = args.args[0].to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(Arc::new(texts.as_string_view().gc())))
    }
}

impl DisplayAs for InBucketsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InBucketsExec: order=[{}], buckets={}", self.ordering, self.buckets)
    }
}

impl ExecutionPlan for InBucketsExec {
    fn name(&self) -> &str {
        "InBucketsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.keys.iter().chain(self.ordering.iter().map(|sort| &sort.expr)) {
            if f(expr)? == TreeNodeRecursion::Stop {
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

    /// Rows that a filter keeps are the same before and after.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.sorted.metrics()
    }

    fn execute(
        &self,
        bucket: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.sorted.execute(bucket, context)
    }
}
