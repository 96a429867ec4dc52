//! `rfm_recency(at, as_of)`, `rfm_frequency(order_id)`, `rfm_monetary(amount)`: the figures of RFM inside any query, for rules of one's own.
//!
//! Each is an aggregate of the engine under the name of the field. What is kept for them of a day, and merged later, is that
//! aggregate's: the last instant, the set of orders, the sum.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, DuplicateTreatment, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, SelectItem, SetExpr,
};

const NAMES: [&str; 3] = ["rfm_recency", "rfm_frequency", "rfm_monetary"];

/// Gives the columns of a query that are calls the names of those.
pub(super) fn name_columns(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Function(function)) = item
            && meant(function).is_some()
            && let Some(name) = function.name.0.last().and_then(|part| part.as_ident())
        {
            let alias = Ident::new(name.value.to_lowercase());
            *item = SelectItem::ExprWithAlias { expr: Expr::Function(function.clone()), alias };
        }
    }
}

/// The aggregate that a call means; `None` for a call of anything else.
pub(super) fn meant(function: &Function) -> Option<Expr> {
    let [part] = function.name.0.as_slice() else { return None };
    let called = &part.as_ident()?.value;
    // Every call of every statement comes by here.
    let name = NAMES.into_iter().find(|name| called.eq_ignore_ascii_case(name))?;
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    let arguments = arguments.collect::<Option<Vec<_>>>()?;
    match (name, arguments.as_slice()) {
        ("rfm_recency", [at, as_of]) => {
            let last = cast(aggregate(function, "max", at.clone(), None), DataType::Date);
            let days = Expr::BinaryOp {
                left: Box::new(cast(as_of.clone(), DataType::Date)),
                op: datafusion::sql::sqlparser::ast::BinaryOperator::Minus,
                right: Box::new(last),
            };
            Some(cast(Expr::Nested(Box::new(days)), DataType::BigInt(None)))
        }
        ("rfm_frequency", [order]) => {
            Some(aggregate(function, "count", order.clone(), Some(DuplicateTreatment::Distinct)))
        }
        ("rfm_monetary", [amount]) => {
            let money = DataType::Decimal(ExactNumberInfo::PrecisionAndScale(38, 6));
            let sum = cast(amount.clone(), money.clone());
            let sum = aggregate(function, "sum", sum, list.duplicate_treatment);
            Some(cast(sum, money))
        }
        _ => None,
    }
}

/// A call of `name` with the rest of the call as it was: its filter, its window.
fn aggregate(
    call: &Function,
    name: &str,
    argument: Expr,
    duplicate_treatment: Option<DuplicateTreatment>,
) -> Expr {
    let mut call = call.clone();
    call.name = ObjectName::from(vec![Ident::new(name)]);
    if let FunctionArguments::List(list) = &mut call.args {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))];
        list.duplicate_treatment = duplicate_treatment;
    }
    Expr::Function(call)
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}
