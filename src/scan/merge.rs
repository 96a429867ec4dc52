//! The fresh rows of a clustered table among its clustered ones, bucket by bucket, in order.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DynComparator, MutableArrayData, RecordBatch, RecordBatchOptions, make_array,
    make_comparator,
};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, Partitioning, PhysicalExpr,
};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

/// Merges a clustered run (one partition a bucket) with the tail's files (each of which has one partition a bucket).
///
/// Both children are stock scans whose partitions are in order. Where no tail row falls into a batch of the run, and that is
/// nearly everywhere, the batch goes through as it is; so a fresh file costs what its own rows cost. Rows of the run come
/// before equal rows of the tail, earlier files of the tail before later ones.
#[derive(Debug)]
pub(super) struct ClusterMergeExec {
    run: Arc<dyn ExecutionPlan>,
    tail: Arc<dyn ExecutionPlan>,
    buckets: usize,
    ordering: LexOrdering,
    fetch: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl ClusterMergeExec {
    /// `run` has one partition a bucket and `tail` one a file and bucket, files outermost; both in `ordering`.
    pub(super) fn try_new(
        run: Arc<dyn ExecutionPlan>,
        tail: Arc<dyn ExecutionPlan>,
        ordering: LexOrdering,
        fetch: Option<usize>,
    ) -> Result<Self> {
        let partitioning = run.properties().partitioning.clone();
        let Partitioning::Hash(_, buckets) = &partitioning else {
            return internal_err!("a clustered run is partitioned by its buckets");
        };
        let (buckets, tails) = (*buckets, tail.properties().partitioning.partition_count());
        if tails == 0 || tails % buckets != 0 {
            return internal_err!("{tails} partitions of a tail do not fit {buckets} buckets");
        }
        // What holds for each child, constants for one, need not hold for the rows of both.
        let mut equivalences = EquivalenceProperties::new(run.schema());
        equivalences.add_ordering(ordering.iter().cloned());
        let properties = PlanProperties::new(
            equivalences,
            partitioning,
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            run,
            tail,
            buckets,
            ordering,
            fetch,
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::new(properties),
        })
    }

    fn rebuilt(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([run, tail]) = <[_; 2]>::try_from(children) else {
            return internal_err!("a merge has two children");
        };
        Ok(Arc::new(Self::try_new(run, tail, self.ordering.clone(), self.fetch)?))
    }
}

impl DisplayAs for ClusterMergeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterMergeExec: order=[{}], buckets={}", self.ordering, self.buckets)?;
        match self.fetch {
            Some(fetch) => write!(f, ", fetch={fetch}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ClusterMergeExec {
    fn name(&self) -> &str {
        "ClusterMergeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.run, &self.tail]
    }

    /// A child that could not prove its order would be sorted, not trusted.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![Some(OrderingRequirements::from(self.ordering.clone())); 2]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; 2]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for sort in self.ordering.iter() {
            if f(&sort.expr)? == TreeNodeRecursion::Stop {
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

    /// Filters hold for either side alone, unless rows were already counted.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        if self.fetch.is_some() {
            return Ok(FilterDescription::all_unsupported(&filters, &self.children()));
        }
        FilterDescription::from_children(filters, &self.children())
    }

    // A limit that only the children knew would let this node give more rows; it counts for itself.
    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let (run, tail) = (Arc::clone(&self.run), Arc::clone(&self.tail));
        let merged = Self::try_new(run, tail, self.ordering.clone(), limit).ok()?;
        Some(Arc::new(merged))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        bucket: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let run = self.run.execute(bucket, Arc::clone(&context))?;
        let files = self.tail.properties().partitioning.partition_count() / self.buckets;
        let open =
            |file: usize| self.tail.execute(file * self.buckets + bucket, Arc::clone(&context));
        let mut tails = (0..files).map(open).collect::<Result<Vec<_>>>()?;
        let tail = match (tails.len(), tails.pop()) {
            (1, Some(only)) => only,
            (_, last) => {
                tails.extend(last);
                merge_sorted(tails, self.schema(), &self.ordering, bucket, &context)?
            }
        };
        let merged = Merge {
            run: Side::new(run),
            tail: Side::new(tail),
            keys: key_columns(&self.ordering)?,
            rows_wanted: context.session_config().batch_size(),
            left: self.fetch,
        };
        let metrics = BaselineMetrics::new(&self.metrics, bucket);
        let stream = futures::stream::try_unfold(merged, move |mut merge| {
            let metrics = metrics.clone();
            async move {
                let next = merge.next().await?;
                if let Some(batch) = &next {
                    metrics.record_output(batch.num_rows());
                }
                Ok(next.map(|batch| (batch, merge)))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

/// The rows of streams that are in order, in order; of equal rows those of an earlier stream come first.
pub(super) fn merge_sorted(
    streams: Vec<SendableRecordBatchStream>,
    schema: SchemaRef,
    ordering: &LexOrdering,
    partition: usize,
    context: &TaskContext,
) -> Result<SendableRecordBatchStream> {
    let reservation = MemoryConsumer::new("ClusterMerge").register(context.memory_pool());
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(schema)
        .with_expressions(ordering)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), partition))
        .with_batch_size(context.session_config().batch_size())
        .with_reservation(reservation)
        .with_round_robin_tie_breaker(false)
        .build()
}

fn key_columns(ordering: &LexOrdering) -> Result<Vec<usize>> {
    use datafusion::physical_expr::expressions::Column;
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    match ordering.iter().map(|sort| column(&sort.expr)).collect::<Option<Vec<_>>>() {
        Some(columns) => Ok(columns),
        None => internal_err!("a table is clustered by columns"),
    }
}

/// One input: its batch, and the rows of it that are gone.
struct Side {
    stream: SendableRecordBatchStream,
    batch: Option<RecordBatch>,
    gone: usize,
}

impl Side {
    fn new(stream: SendableRecordBatchStream) -> Self {
        Self { stream, batch: None, gone: 0 }
    }

    /// Makes sure that there is a row, unless the input has ended.
    async fn fill(&mut self) -> Result<()> {
        while self.batch.as_ref().is_none_or(|batch| self.gone == batch.num_rows()) {
            self.gone = 0;
            self.batch = self.stream.next().await.transpose()?;
            if self.batch.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next `n` rows, without a copy.
    fn give(&mut self, n: usize) -> Option<RecordBatch> {
        let batch = self.batch.as_ref()?;
        let rows = batch.slice(self.gone, n.min(batch.num_rows() - self.gone));
        self.gone += rows.num_rows();
        Some(rows)
    }

    fn rows(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.num_rows() - self.gone)
    }
}

struct Merge {
    run: Side,
    tail: Side,
    keys: Vec<usize>,
    rows_wanted: usize,
    /// Rows that may still be given.
    left: Option<usize>,
}

impl Merge {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let batch = self.next_rows().await?;
        let (Some(batch), Some(left)) = (&batch, self.left) else { return Ok(batch) };
        let kept = batch.slice(0, left.min(batch.num_rows()));
        self.left = Some(left - kept.num_rows());
        Ok(Some(kept))
    }

    async fn next_rows(&mut self) -> Result<Option<RecordBatch>> {
        self.run.fill().await?;
        self.tail.fill().await?;
        let (run, tail) = match (&self.run.batch, &self.tail.batch) {
            (Some(run), Some(tail)) => (run.clone(), tail.clone()),
            (Some(_), None) => return Ok(self.run.give(usize::MAX)),
            (None, Some(_)) => return Ok(self.tail.give(usize::MAX)),
            (None, None) => return Ok(None),
        };
        let order = Comparison::new(&run, &tail, &self.keys)?;
        let run_before = |from: usize, at: usize| {
            gallop(from, run.num_rows(), |row| order.compare(row, at) != Ordering::Greater)
        };
        // The rows of the run that come before the first row of the tail: all of them, mostly.
        let from = self.run.gone;
        let before = run_before(from, self.tail.gone);
        const PIECE_ROWS: usize = 512;
        if before - from >= PIECE_ROWS || before == run.num_rows() {
            return Ok(self.run.give(before - from));
        }
        // Here the two are close together: piece by piece, until one of them ends or there is enough.
        let mut pieces = Pieces::default();
        pieces.take(0, &mut self.run, before);
        while pieces.rows < self.rows_wanted && self.run.rows() > 0 && self.tail.rows() > 0 {
            let at = self.run.gone;
            let end = gallop(self.tail.gone, tail.num_rows(), |row| {
                order.compare(at, row) == Ordering::Greater
            });
            pieces.take(1, &mut self.tail, end);
            if self.tail.rows() > 0 {
                let end = run_before(self.run.gone, self.tail.gone);
                pieces.take(0, &mut self.run, end);
            }
        }
        pieces.copy(&run, &tail).map(Some)
    }
}

/// Rows of two batches, taken in turns.
#[derive(Default)]
struct Pieces {
    ranges: Vec<(usize, usize, usize)>,
    rows: usize,
}

impl Pieces {
    /// The next rows of a side, before `end`.
    fn take(&mut self, which: usize, side: &mut Side, end: usize) {
        if side.gone < end {
            self.ranges.push((which, side.gone, end));
            self.rows += end - side.gone;
            side.gone = end;
        }
    }

    /// One batch of them: range by range, which for pieces of some rows is much cheaper than row by row.
    fn copy(&self, run: &RecordBatch, tail: &RecordBatch) -> Result<RecordBatch> {
        let copied = |(one, other): (&ArrayRef, &ArrayRef)| -> Result<ArrayRef> {
            let (one, other) = (one.to_data(), other.to_data());
            let mut copy = MutableArrayData::new(vec![&one, &other], false, self.rows);
            for (which, from, to) in &self.ranges {
                copy.try_extend(*which, *from, *to)?;
            }
            Ok(make_array(copy.freeze()))
        };
        let columns = run.columns().iter().zip(tail.columns());
        let columns = columns.map(copied).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(run.schema(), columns, &options)?)
    }
}

/// The first row from `from` on for which `is_before` does not hold, looking further and further ahead.
fn gallop(from: usize, end: usize, is_before: impl Fn(usize) -> bool) -> usize {
    // Mostly the whole batch goes first.
    if from < end && is_before(end - 1) {
        return end;
    }
    let (mut low, mut step) = (from, 1);
    while low < end && is_before(low) {
        let next = low + step;
        if next >= end || !is_before(next) {
            let (mut low, mut high) = (low + 1, next.min(end));
            while low < high {
                let middle = low + (high - low) / 2;
                if is_before(middle) { low = middle + 1 } else { high = middle }
            }
            return low;
        }
        low = next;
        step *= 2;
    }
    low
}

/// Rows of one batch against rows of another, by the cluster's columns.
struct Comparison {
    columns: Vec<DynComparator>,
}

impl Comparison {
    fn new(run: &RecordBatch, tail: &RecordBatch, keys: &[usize]) -> Result<Self> {
        let options = SortOptions { descending: false, nulls_first: false };
        let column = |key: &usize| make_comparator(run.column(*key), tail.column(*key), options);
        let columns = keys.iter().map(column).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Self { columns })
    }

    fn compare(&self, run: usize, tail: usize) -> Ordering {
        let mut columns = self.columns.iter().map(|compare| compare(run, tail));
        columns.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}
