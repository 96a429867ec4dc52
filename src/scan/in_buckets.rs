//! Rows that lie anywhere, put into the buckets of a clustered table and into its order.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::MetricsSet;
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
        let parts = RepartitionExec::try_new(Arc::clone(&rows), partitioning)?;
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
