//! Queries of the catalogues, made simple enough for an engine that was not made for them.
//!
//! Clients ask about triggers, policies, publications and other things that a warehouse has not. What is selected from a
//! catalogue that is empty here is empty, whatever else the query says; so such a select is replaced by one that is plainly
//! empty, and its subqueries, casts and set-returning functions need not be planned.

use clientele_tree::{Node, NodeMut, Tree};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArguments, Ident, JoinOperator, Query, Select, SelectItem,
    SetExpr, Statement, TableFactor, TableWithJoins, Value,
};

use crate::catalog::pg_catalog::ALWAYS_EMPTY;

/// Whether a statement reads PostgreSQL's catalogue.
pub(super) fn is_about_catalogue(statement: &Statement) -> bool {
    statement.any(|node| {
        let Node::Relation(name) = node else { return false };
        let last = name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.to_lowercase());
        last.is_some_and(|n| n.starts_with("pg_"))
    })
}

/// Empties what is empty, and makes scalar subqueries single-valued.
pub(super) fn simplify(statement: &mut Statement) {
    statement.change_all(|node| match node {
        NodeMut::Query(query) => simplify_query(query),
        NodeMut::Expr(expr) => simplify_expr(expr),
        NodeMut::Factor(_) => {}
    });
}

fn simplify_query(query: &mut Query) {
    let emptied = empty_set(&mut query.body);
    if emptied && let SetExpr::Select(_) = query.body.as_ref() {
        query.order_by = None;
    }
}

fn simplify_expr(expr: &mut Expr) {
    match expr {
        // A correlated lookup by key has one row at most; the engine wants to be told by an aggregate.
        Expr::Subquery(query) if is_emptied(query) => *expr = text_null(),
        Expr::Subquery(query) => make_single_valued(query),
        // Every type here is a base type: what is asked of domains and composite types is nothing.
        Expr::Case { conditions, .. } => {
            for branch in
                conditions.iter_mut().filter(|branch| is_of_other_types(&branch.condition))
            {
                let data_type = match branch.result.to_string().contains("array_agg") {
                    true => "TEXT[]",
                    false => "BIGINT",
                };
                let nothing =
                    crate::dialect::parse_expression(&format!("CAST(NULL AS {data_type})"));
                branch.result = nothing.unwrap_or_else(|_| null());
            }
        }
        // ARRAY(SELECT ...) of nothing.
        Expr::Function(function) => {
            if let FunctionArguments::Subquery(_) = &function.args {
                *expr = null();
            }
        }
        _ => {}
    }
}

/// `t.typtype = 'd'`, and any other letter than the one of base types.
fn is_of_other_types(condition: &Expr) -> bool {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = condition else { return false };
    let column = match left.as_ref() {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    let letter = match right.as_ref() {
        Expr::Value(value) => value.value.clone().into_string(),
        _ => None,
    };
    column.is_some_and(|name| name.value.eq_ignore_ascii_case("typtype"))
        && letter.is_some_and(|letter| letter != "b")
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

/// Whether the whole of `body` was emptied.
fn empty_set(body: &mut SetExpr) -> bool {
    match body {
        SetExpr::Select(select) if reads_empty(select) => {
            empty_select(select);
            true
        }
        SetExpr::SetOperation { left, right, .. } => {
            let left = empty_set(left);
            empty_set(right) && left
        }
        SetExpr::Query(query) => empty_set(&mut query.body),
        _ => false,
    }
}

fn reads_empty(select: &Select) -> bool {
    select.from.iter().any(|table| {
        is_empty(&table.relation)
            || table
                .joins
                .iter()
                .any(|join| is_inner(&join.join_operator) && is_empty(&join.relation))
    })
}

fn is_inner(operator: &JoinOperator) -> bool {
    matches!(operator, JoinOperator::Inner(_) | JoinOperator::Join(_) | JoinOperator::CrossJoin(_))
}

fn is_empty(factor: &TableFactor) -> bool {
    let TableFactor::Table { name, args: None, .. } = factor else { return false };
    let last = name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.to_lowercase());
    last.is_some_and(|name| ALWAYS_EMPTY.contains(&name.as_str()))
}

fn empty_select(select: &mut Select) {
    for item in &mut select.projection {
        let alias = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.clone()),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().cloned(),
            SelectItem::UnnamedExpr(Expr::Cast { expr, .. }) => match expr.as_ref() {
                Expr::Identifier(name) => Some(name.clone()),
                Expr::CompoundIdentifier(parts) => parts.last().cloned(),
                _ => None,
            },
            SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
            _ => None,
        };
        let alias = alias.unwrap_or_else(|| Ident::new("?column?"));
        let expr = if is_boolean(&alias.value) {
            typed_null(datafusion::sql::sqlparser::ast::DataType::Boolean)
        } else {
            text_null()
        };
        let alias = Ident::with_quote('"', alias.value);
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
    select.from = Vec::<TableWithJoins>::new();
    select.selection = Some(Expr::Value(Value::Boolean(false).into()));
    select.having = None;
    select.distinct = None;
    select.group_by = datafusion::sql::sqlparser::ast::GroupByExpr::Expressions(vec![], vec![]);
}

/// Whether a query is one that [`empty_select`] left.
fn is_emptied(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(select) => {
            let is_false = matches!(&select.selection, Some(Expr::Value(v)) if v.value == Value::Boolean(false));
            select.from.is_empty() && is_false
        }
        _ => false,
    }
}

/// Whether a column of the catalogue that is empty here is a boolean in PostgreSQL.
fn is_boolean(name: &str) -> bool {
    let name = name.to_lowercase();
    let others =
        ["indnullsnotdistinct", "condeferrable", "condeferred", "convalidated", "seqcycle"];
    name.starts_with("indis") || name.starts_with("is_") || others.contains(&name.as_str())
}

fn text_null() -> Expr {
    typed_null(datafusion::sql::sqlparser::ast::DataType::Text)
}

fn typed_null(data_type: datafusion::sql::sqlparser::ast::DataType) -> Expr {
    Expr::Cast {
        kind: datafusion::sql::sqlparser::ast::CastKind::Cast,
        expr: Box::new(null()),
        data_type,
        format: None,
        array: false,
    }
}

fn make_single_valued(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if select.from.is_empty() && select.selection.is_none() {
        return;
    }
    let [item] = select.projection.as_mut_slice() else { return };
    let expr = match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr,
        _ => return,
    };
    let is_aggregate = matches!(expr, Expr::Function(f)
        if f.name.to_string().to_lowercase().rsplit('.').next().is_some_and(|n| matches!(n, "count" | "min" | "max" | "string_agg" | "array_agg" | "sum")));
    if !is_aggregate && let Ok(minimum) = crate::dialect::parse_expression(&format!("min({expr})"))
    {
        *expr = minimum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{parse_statement, tokenize};

    #[test]
    fn selects_from_empty_catalogues_become_plainly_empty() {
        let sql = "SELECT pol.polname, 'x' AS y FROM pg_catalog.pg_policy pol WHERE pol.polrelid = '1' ORDER BY 1";
        let mut statement = parse_statement(tokenize(sql).unwrap()).unwrap();
        assert!(is_about_catalogue(&statement));
        simplify(&mut statement);
        assert_eq!(
            statement.to_string(),
            "SELECT CAST(NULL AS TEXT) AS \"polname\", CAST(NULL AS TEXT) AS \"y\" WHERE false"
        );
    }
}
