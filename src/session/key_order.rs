//! Keys of a GROUP BY in the order in which a table is clustered.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::catalog::clustering_of;

/// Writes `GROUP BY record_id, source` as `GROUP BY source, record_id` where the table is clustered by (source, record_id).
///
/// The rows of a group are the same; but the engine sees that they lie together, and need not be sent anywhere, only when
/// the keys are named in the table's order. The columns of the result keep theirs.
#[derive(Debug)]
pub(super) struct KeysInOrder;

impl OptimizerRule for KeysInOrder {
    fn name(&self) -> &str {
        "keys_in_order"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = plan else { return Ok(Transformed::no(plan)) };
        let Some(keys) = in_order(&aggregate) else {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        };
        let columns = aggregate.schema.columns().into_iter().map(Expr::Column).collect();
        let ordered = Aggregate::try_new(aggregate.input, keys, aggregate.aggr_expr)?;
        let ordered = Arc::new(LogicalPlan::Aggregate(ordered));
        let named = Projection::try_new_with_schema(columns, ordered, aggregate.schema)?;
        Ok(Transformed::yes(LogicalPlan::Projection(named)))
    }
}

/// The keys in the order of the table below, where they are columns of one and are not in that order yet.
fn in_order(aggregate: &Aggregate) -> Option<Vec<Expr>> {
    let column = |key: &Expr| match key {
        Expr::Column(column) => stored_name(&aggregate.input, column),
        _ => None,
    };
    let names: Vec<Option<(String, &LogicalPlan)>> =
        aggregate.group_expr.iter().map(column).collect();
    let (_, scan) = names.iter().flatten().next()?;
    let LogicalPlan::TableScan(scan) = scan else { return None };
    let provider = source_as_provider(&scan.source).ok()?;
    let clustering = clustering_of(provider.as_ref())?;
    let place = |key: &Option<(String, &LogicalPlan)>| {
        let name = key.as_ref().map(|(name, _)| name);
        clustering.columns.iter().position(|column| Some(column) == name).unwrap_or(usize::MAX)
    };
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|at| place(&names[*at]));
    let is_in_order = order.is_sorted();
    (!is_in_order).then(|| order.into_iter().map(|at| aggregate.group_expr[at].clone()).collect())
}

/// What a column is called in the one table below, and the scan of it.
fn stored_name<'a>(plan: &'a LogicalPlan, column: &Column) -> Option<(String, &'a LogicalPlan)> {
    match plan {
        LogicalPlan::TableScan(_) => Some((column.name.clone(), plan)),
        LogicalPlan::Filter(filter) => stored_name(&filter.input, column),
        LogicalPlan::SubqueryAlias(alias) => {
            let at = alias.schema.maybe_index_of_column(column)?;
            stored_name(&alias.input, &alias.input.schema().columns()[at])
        }
        LogicalPlan::Projection(projection) => {
            let at = projection.schema.maybe_index_of_column(column)?;
            match projection.expr[at].clone().unalias() {
                Expr::Column(below) => stored_name(&projection.input, &below),
                _ => None,
            }
        }
        _ => None,
    }
}
