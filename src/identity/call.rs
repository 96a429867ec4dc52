//! `oneid()` as it is written, and as the query that answers it.

use clientele_tree::{NodeMut, Tree};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query,
    SetExpr, Statement, TableFactor, Value,
};

use super::lookup::can_look_up;
use crate::dialect::{literal, parse_expression, quoted};
use crate::error::{Error, Kind, Result};
use crate::store::Generation;

/// One call, its arguments as they are written.
pub struct Call<'a> {
    /// The graph.
    pub graph: String,
    /// The type of the identifier.
    pub id_type: &'a Expr,
    /// Its value.
    pub value: &'a Expr,
    /// Its scope.
    pub scope: Option<&'a Expr>,
}

impl<'a> Call<'a> {
    /// Whether a function is one.
    pub fn is(function: &Function) -> bool {
        matches!(function.name.0.as_slice(), [part]
            if part.as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case("oneid")))
    }

    /// What a call says.
    ///
    /// # Errors
    /// 22023 for other arguments.
    pub fn of(function: &'a Function) -> Result<Self> {
        let misuse = |problem: &str| {
            Error::new(Kind::InvalidParameter, format!("oneid: {problem}"))
                .hint("oneid('graph', 'type', value), or oneid('graph', 'type', value, scope)")
        };
        let FunctionArguments::List(list) = &function.args else {
            return Err(misuse("the arguments are missing"));
        };
        let given = list.args.iter().map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            other => Err(misuse(&format!("{other} is no value"))),
        });
        let given = given.collect::<Result<Vec<_>>>()?;
        let (graph, id_type, value, scope) = match given.as_slice() {
            [graph, id_type, value] => (graph, id_type, value, None),
            [graph, id_type, value, scope] => (graph, id_type, value, Some(*scope)),
            _ => return Err(misuse("three or four arguments are needed")),
        };
        match constant(graph) {
            Some(Some(graph)) => Ok(Call { graph, id_type, value, scope }),
            _ => Err(misuse("the graph is named by a constant")),
        }
    }
}

/// The text of a constant, `Some(None)` for NULL; `None` for what is not constant.
pub fn constant(expr: &Expr) -> Option<Option<String>> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Null => Some(None),
            Value::Number(digits, _) => Some(Some(digits.clone())),
            other => other.clone().into_string().map(Some),
        },
        // A bound parameter arrives as a cast literal.
        Expr::Cast { expr, .. } | Expr::Nested(expr) => constant(expr),
        _ => None,
    }
}

/// Refuses a graph that cannot be asked.
///
/// # Errors
/// 42704 for one that is not there, 55000 for one that an earlier version made.
pub fn must_answer(state: &Generation, graph: &str) -> Result<()> {
    if can_look_up(state, graph)? {
        return Ok(());
    }
    Err(Error::new(
        Kind::NotInState,
        format!(
            "identity graph \"{graph}\" was made by an earlier version and cannot be asked yet"
        ),
    )
    .hint(format!("REFRESH IDENTITY GRAPH {graph}")))
}

/// Replaces the calls of a view's query by queries: what they answer is of the day it is asked. Earlier versions kept such queries in the
/// place of the calls.
///
/// # Errors
/// As [`must_answer`].
pub fn expand_view(state: &Generation, query: Query) -> Result<Query> {
    let mut statement = Statement::Query(Box::new(query));
    statement.change(|node| {
        let NodeMut::Expr(expr) = node else { return Ok(()) };
        if let Some(call) = call_of_earlier(expr) {
            *expr = parse_expression(&call)?;
        }
        if let Expr::Function(function) = &*expr
            && Call::is(function)
        {
            must_answer(state, &Call::of(function)?.graph)?;
        }
        replace_call(NodeMut::Expr(expr), |_| None)
    })?;
    match statement {
        Statement::Query(query) => Ok(*query),
        other => Err(Error::internal(format!("a query became {other}"))),
    }
}

/// The call that a query of an earlier version stands for.
fn call_of_earlier(expr: &Expr) -> Option<String> {
    let Expr::Subquery(query) = expr else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let TableFactor::Table { name, alias: Some(alias), .. } = &select.from.first()?.relation else {
        return None;
    };
    let Some(Expr::BinaryOp { op: BinaryOperator::Eq, right, .. }) = &select.selection else {
        return None;
    };
    let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = right.as_ref()
    else {
        return None;
    };
    let graph = name.0.first()?.as_ident()?.value.as_str();
    let args: Vec<String> = list.args.iter().map(ToString::to_string).collect();
    (alias.name.value == "__lookup")
        .then(|| format!("oneid({}, {})", literal(graph), args.join(", ")))
}

/// The relation of whose identifiers are, by half of their hashes, with a row for each of a record: `__hash`, `__one_id`.
fn whose(graph: &str) -> String {
    let graph = quoted(graph);
    format!(
        "SELECT i.hash AS __hash, m.one_id AS __one_id FROM {graph}.identifiers AS i JOIN {graph}.map AS m ON m.record = i.record \
         WHERE NOT EXISTS (SELECT 1 FROM {graph}.owners AS o WHERE o.hash = i.hash) \
         AND NOT EXISTS (SELECT 1 FROM {graph}.types AS t WHERE t.id_type = i.id_type AND NOT t.joins) \
         UNION ALL SELECT hash, one_id FROM {graph}.owners"
    )
}

/// Puts in the place of a call what `known` says of it, and else a query.
///
/// # Errors
/// As [`Call::of`].
pub fn replace_call(node: NodeMut<'_>, known: impl Fn(&Call<'_>) -> Option<String>) -> Result<()> {
    let NodeMut::Expr(expr) = node else { return Ok(()) };
    let Expr::Function(function) = &*expr else { return Ok(()) };
    if !Call::is(function) {
        return Ok(());
    }
    let call = Call::of(function)?;
    let text = match known(&call) {
        Some(known) => format!("CAST({known} AS BIGINT)"),
        // The names keep clear of the statement's own.
        None => format!(
            "(SELECT CASE WHEN min(__whose.__one_id) = max(__whose.__one_id) THEN min(__whose.__one_id) END \
             FROM ({}) AS __whose WHERE __whose.__hash = oneid_hash({}, {}, {}))",
            whose(&call.graph),
            call.id_type,
            call.value,
            call.scope.map_or_else(|| literal(""), ToString::to_string),
        ),
    };
    *expr = parse_expression(&text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_views_of_earlier_versions_keep_is_a_call() {
        let kept = "(SELECT last_value(__lookup.__one_id ORDER BY coalesce(__lookup.__run, 0)) \
            FROM \"a b\".lookup AS __lookup (__hash, __one_id, __run) \
            WHERE __lookup.__hash = oneid_hash('phone', c.phone, ''))";
        let call = call_of_earlier(&parse_expression(kept).unwrap());
        assert_eq!(call.as_deref(), Some("oneid('a b', 'phone', c.phone, '')"));
        let other = parse_expression("(SELECT max(a) FROM b AS c WHERE d = f(1))").unwrap();
        assert_eq!(call_of_earlier(&other), None);
    }
}
