//! Joins that let go of their thread.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Wraps every operator that can make many batches of one, so that a cancelled query stops.
///
/// The engine's own rule makes the leaves cooperative; a join multiplies what a leaf gives and then computes for minutes
/// without asking for more, and a task that never yields cannot be stopped.
#[derive(Debug)]
pub(super) struct YieldAfterJoins;

impl PhysicalOptimizerRule for YieldAfterJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let multiplies = matches!(
                node.name(),
                "CrossJoinExec"
                    | "NestedLoopJoinExec"
                    | "HashJoinExec"
                    | "SortMergeJoinExec"
                    | "PiecewiseMergeJoinExec"
                    | "UnnestExec"
            );
            Ok(if multiplies {
                Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
            } else {
                Transformed::no(node)
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "yield_after_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
