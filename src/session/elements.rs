//! One element of a list that was gathered.

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::functions_nested::expr_fn::array_element;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, GetFieldAccess};

/// Plans `(array_agg(x ORDER BY y))[1]`, as the newest value of a customer is often asked for, as the first value, for
/// which no list is made; and any other element as one of the list.
///
/// The engine would make it `nth_value`, which takes only one order for all calls of a query and forgets DISTINCT.
#[derive(Debug)]
pub(super) struct Elements;

impl ExprPlanner for Elements {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let (Expr::AggregateFunction(call), GetFieldAccess::ListIndex { key }) =
            (&access.expr, &access.field_access)
        else {
            return Ok(PlannerResult::Original(access));
        };
        if call.func.name() != "array_agg" {
            return Ok(PlannerResult::Original(access));
        }
        let is_first = matches!(&**key, Expr::Literal(ScalarValue::Int64(Some(1)), _));
        Ok(PlannerResult::Planned(if is_first && !call.params.distinct {
            Expr::AggregateFunction(AggregateFunction {
                func: first_value_udaf(),
                params: call.params.clone(),
            })
        } else {
            array_element(access.expr.clone(), (**key).clone())
        }))
    }
}
