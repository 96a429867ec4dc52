//! The files of a bucket, one after the other.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, Partitioning, PhysicalExpr,
};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};

/// Gives the partitions of a scan, which has one a file, bucket by bucket in turn.
///
/// The engine would keep the order of several files in one partition if their statistics proved it. Those are smallest and largest
/// values column by column, and of a customer of two columns they prove nothing; that a compaction wrote the files one after
/// the other does.
#[derive(Debug)]
pub(super) struct InTurnExec {
    files: Arc<dyn ExecutionPlan>,
    /// For each bucket its files, in order.
    turns: Vec<Vec<usize>>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    ordering: LexOrdering,
    properties: Arc<PlanProperties>,
}

impl InTurnExec {
    pub(super) fn try_new(
        files: Arc<dyn ExecutionPlan>,
        turns: Vec<Vec<usize>>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        ordering: LexOrdering,
    ) -> Result<Self> {
        let mut equivalences = EquivalenceProperties::new(files.schema());
        equivalences.add_ordering(ordering.iter().cloned());
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::Hash(keys.clone(), turns.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { files, turns, keys, ordering, properties: Arc::new(properties) })
    }

    fn rebuilt(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([files]) = <[_; 1]>::try_from(children) else {
            return internal_err!("files come in turn from one scan");
        };
        let (turns, keys) = (self.turns.clone(), self.keys.clone());
        Ok(Arc::new(Self::try_new(files, turns, keys, self.ordering.clone())?))
    }
}

impl DisplayAs for InTurnExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InTurnExec: order=[{}], buckets={}", self.ordering, self.turns.len())
    }
}

impl ExecutionPlan for InTurnExec {
    fn name(&self) -> &str {
        "InTurnExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.files]
    }

    /// A file that could not prove its order would be sorted, not trusted.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![Some(OrderingRequirements::from(self.ordering.clone()))]
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

    fn execute(
        &self,
        bucket: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let files = Arc::clone(&self.files);
        // A file is opened when the one before has ended.
        let turns = futures::stream::iter(self.turns[bucket].clone());
        let rows = turns.map(move |file| files.execute(file, Arc::clone(&context))).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
