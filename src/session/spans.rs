//! Comparing spans of time.

use std::sync::Arc;

use arrow::datatypes::DataType;
use clientele_udfs::time::interval_us::IntervalUs;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, ScalarUDF, binary_expr};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Compares intervals, and differences of timestamps, by their length.
///
/// The engine compares months, days and nanoseconds one after the other, so that 151 days are not more than 90 when one of
/// them came from a subtraction. `paid_at - seen_at >= INTERVAL '90 days'` is what people write.
#[derive(Debug)]
pub(super) struct CompareSpans;

impl ExprPlanner for CompareSpans {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match expr.op {
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let is_span = |side: &Expr| {
            side.get_type(schema)
                .is_ok_and(|t| matches!(t, DataType::Interval(_) | DataType::Duration(_)))
        };
        if !is_span(&expr.left) || !is_span(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let length = Arc::new(ScalarUDF::from(IntervalUs::new()));
        let of = |side: Expr| length.call(vec![side]);
        Ok(PlannerResult::Planned(binary_expr(of(expr.left), operator, of(expr.right))))
    }
}
