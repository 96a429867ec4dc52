//! Lists and joined texts that are gathered in order, from rows that are sorted before.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::{LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// Sorts the rows below `array_agg(x ORDER BY y)` and `string_agg(x, d ORDER BY y)` instead of what they gathered.
///
/// The engine gathers first and sorts when a group is finished: in memory, in one call that nothing can interrupt, a
/// minute long where a group has a hundred million rows. Sorted before, by the keys of the groups and then by the order
/// that is asked for, the values are only appended; the sort spills, and stops when the query is cancelled. Where the
/// rows already lie in that order, as the events of a customer do, nothing is sorted at all.
///
/// Calls of one query that ask for different orders, DISTINCT ones, and grouping sets stay with the engine's way.
#[derive(Debug)]
pub(super) struct GatherInOrder;

impl PhysicalOptimizerRule for GatherInOrder {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match in_order(&node)? {
                Some(node) => Transformed::yes(node),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "gather_in_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `node` over sorted rows, where it is an aggregation of the kind and they may be sorted for it.
fn in_order(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(last) = node.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(first) = first_stage(last) else { return Ok(None) };
    let keys = first.group_expr();
    let Some(order) = common_order(first.aggr_expr()) else { return Ok(None) };
    if keys.has_grouping_set() || last.limit_options().is_some() {
        return Ok(None);
    }

    let rows = below_the_sort(first.input());
    let partitions = node.output_partitioning().partition_count();
    let (rows, mode) = match last.mode() {
        _ if partitions == 1 => (below_the_gathering(rows), AggregateMode::Single),
        AggregateMode::SinglePartitioned => (rows, AggregateMode::SinglePartitioned),
        _ if keys.is_empty() => return Ok(None),
        _ => {
            let by_key = Partitioning::Hash(keys.input_exprs(), partitions);
            let apart = Arc::new(RepartitionExec::try_new(rows, by_key)?);
            (apart as _, AggregateMode::SinglePartitioned)
        }
    };
    let sorted = sorted(rows, &keys.input_exprs(), &order, mode)?;
    let without_order = |call| without_order(call, &first.input_schema());
    let calls = first.aggr_expr().iter().map(without_order).collect::<Result<Vec<_>>>()?;
    let aggregation = AggregateExec::try_new(
        mode,
        keys.clone(),
        calls,
        first.filter_expr().to_vec(),
        sorted,
        first.input_schema(),
    )?;
    let aggregation: Arc<dyn ExecutionPlan> = Arc::new(aggregation);
    let keeps_order = match node.output_ordering() {
        None => true,
        Some(order) => aggregation.equivalence_properties().ordering_satisfy(order.clone())?,
    };
    Ok((keeps_order && aggregation.schema() == node.schema()).then_some(aggregation))
}

/// The stage of `last` that sees the rows: itself, or the one below that hands it partial results.
fn first_stage(last: &AggregateExec) -> Option<&AggregateExec> {
    if matches!(last.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned) {
        return Some(last);
    }
    if !matches!(last.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned) {
        return None;
    }
    let mut node = last.input();
    loop {
        if let Some(stage) = node.downcast_ref::<AggregateExec>() {
            return matches!(stage.mode(), AggregateMode::Partial).then_some(stage);
        }
        let passes = node.is::<RepartitionExec>()
            || node.is::<CoalescePartitionsExec>()
            || node.is::<SortPreservingMergeExec>()
            || node.is::<SortExec>()
            || node.is::<CooperativeExec>();
        if !passes || node.fetch().is_some() {
            return None;
        }
        node = node.children().into_iter().next()?;
    }
}

/// The order that the ordered calls ask for, where it is one and they are all of the kind.
fn common_order(calls: &[Arc<AggregateFunctionExpr>]) -> Option<Vec<PhysicalSortExpr>> {
    let mut orders = calls.iter().filter(|call| !call.order_bys().is_empty()).map(|call| {
        let gathers = matches!(call.fun().name(), "array_agg" | "string_agg");
        (gathers && !call.is_distinct()).then(|| asked_order(call))
    });
    let first = orders.next()??;
    orders.all(|order| order.as_ref() == Some(&first)).then_some(first)
}

/// The order as written; the planner may have turned it round together with the function.
fn asked_order(call: &AggregateFunctionExpr) -> Vec<PhysicalSortExpr> {
    let order = call.order_bys().iter().cloned();
    if call.is_reversed() { order.map(|by| by.reverse()).collect() } else { order.collect() }
}

/// The call as it is for rows that come in its order.
fn without_order(
    call: &Arc<AggregateFunctionExpr>,
    rows: &SchemaRef,
) -> Result<Arc<AggregateFunctionExpr>> {
    if call.order_bys().is_empty() {
        return Ok(Arc::clone(call));
    }
    let function =
        if call.fun().name() == "array_agg" { array_agg_udaf() } else { string_agg_udaf() };
    let mut builder = AggregateExprBuilder::new(function, call.expressions())
        .schema(Arc::clone(rows))
        .alias(call.name())
        .with_ignore_nulls(call.ignore_nulls());
    if let Some(text) = call.human_display() {
        builder = builder.human_display(text);
    }
    if let Some(alias) = call.human_display_alias() {
        builder = builder.human_display_alias(alias);
    }
    Ok(Arc::new(builder.build()?))
}

/// `rows` sorted by the keys of the groups and then by `order`, in one partition where the groups lie in one.
fn sorted(
    rows: Arc<dyn ExecutionPlan>,
    keys: &[Arc<dyn PhysicalExpr>],
    order: &[PhysicalSortExpr],
    mode: AggregateMode,
) -> Result<Arc<dyn ExecutionPlan>> {
    // Keys in the order that the rows have, where they have one: it may be all that is needed, and what is above may
    // count on it.
    let (mut by, known) = rows.equivalence_properties().find_longest_permutation(keys)?;
    let others = keys.iter().enumerate().filter(|(at, _)| !known.contains(at));
    by.extend(others.map(|(_, key)| PhysicalSortExpr::new_default(Arc::clone(key))));
    by.extend_from_slice(order);
    let Some(by) = LexOrdering::new(by) else { return Ok(rows) };
    let rows = if rows.equivalence_properties().ordering_satisfy(by.clone())? {
        rows
    } else {
        Arc::new(SortExec::new(by.clone(), rows).with_preserve_partitioning(true)) as _
    };
    let merges = mode == AggregateMode::Single && rows.output_partitioning().partition_count() > 1;
    Ok(if merges { Arc::new(SortPreservingMergeExec::new(by, rows)) } else { rows })
}

/// What lies below sorts that serve the aggregation alone.
fn below_the_sort(mut rows: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    while rows.is::<SortExec>() && rows.fetch().is_none() {
        let Some(below) = rows.children().into_iter().next() else { break };
        rows = below;
    }
    Arc::clone(rows)
}

/// What lies below what brings partitions together for the aggregation alone.
fn below_the_gathering(rows: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let gathers = rows.is::<CoalescePartitionsExec>() || rows.is::<SortPreservingMergeExec>();
    match rows.children().as_slice() {
        [below] if gathers && rows.fetch().is_none() => below_the_sort(below),
        _ => rows,
    }
}
