//! `SET funnel_dialect`, and windows whose unit nobody said.

use clientele_tree::{Node, NodeMut, Tree};
use clientele_udfs::funnel::dialect::Dialect;
use clientele_udfs::funnel::silent_unit;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};

use crate::dialect;
use crate::error::Result;

/// Functions that other engines have, too, and answer otherwise. Those that only we have are always exact.
const OF_OTHERS: [&str; 5] =
    ["windowfunnel", "retention", "sequencematch", "sequencecount", "sequencematchevents"];

/// Functions whose window may be a bare number.
const WITH_WINDOW: [&str; 3] = ["windowfunnel", "funnelpath", "funnelattempts"];

fn is_among(name: &str, functions: &[&str]) -> bool {
    functions.iter().any(|family| dialect::is_of_family(name, family))
}

fn calls(function: &ast::Function, functions: &[&str]) -> bool {
    let name = function.name.0.last().and_then(|part| part.as_ident());
    name.is_some_and(|name| is_among(&name.value, functions))
}

/// Makes the session's dialect an argument of every call that does not name one.
pub(super) fn in_dialect(tree: &mut impl Tree, name: &str) -> Result<()> {
    if Dialect::of(name) == Some(Dialect::Exact) {
        return Ok(());
    }
    let argument = dialect::parse_expression(&dialect::literal(name))?;
    tree.change_all(|node| {
        let NodeMut::Expr(ast::Expr::Function(function)) = node else { return };
        if !calls(function, &OF_OTHERS) {
            return;
        }
        let FunctionArguments::List(list) = &mut function.args else { return };
        if !list.args.first().is_some_and(names_dialect) {
            list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(argument.clone())));
        }
    });
    Ok(())
}

fn names_dialect(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value))) = argument else {
        return false;
    };
    matches!(&value.value, Value::SingleQuotedString(text) if Dialect::of(text).is_some())
}

/// Whether a statement's own text calls a function that has a window; those of its views do not count.
pub(super) fn has_window(tree: &impl Tree) -> bool {
    tree.any(|node| {
        matches!(node, Node::Expr(ast::Expr::Function(function))
            if calls(function, &WITH_WINDOW))
    })
}

/// A notice about a window; its number, where the text has it.
fn notice_of(function: &str, window: &Expr, unit: &str) -> String {
    let mut bare = window;
    while let Expr::Cast(cast) = bare {
        bare = &cast.expr;
    }
    match bare {
        Expr::Literal(number, _) => format!(
            "{function}: the window {number} is taken for {unit}; INTERVAL '{number} {unit}' says so itself"
        ),
        _ => format!(
            "{function}: the window is a bare number and is taken for {unit}; an INTERVAL says so itself"
        ),
    }
}

/// What should be known of a plan: windows that are bare numbers on a time, with the unit that they are taken in.
pub(super) fn notices(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let (function, args) = match expr {
                    Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
                    Expr::WindowFunction(call) => (call.fun.name(), &call.params.args),
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if !is_among(function, &WITH_WINDOW) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                let types =
                    args.iter().map(|arg| arg.get_type(&schema).ok()).collect::<Option<Vec<_>>>();
                let named = match args.first() {
                    Some(Expr::Literal(value, _)) => {
                        value.try_as_str().flatten().and_then(Dialect::of)
                    }
                    _ => None,
                };
                let named = named.unwrap_or_default();
                if let Some((window, unit)) = types.and_then(|types| silent_unit(named, &types)) {
                    let notice = notice_of(function, &args[window], unit);
                    if !notices.contains(&notice) {
                        notices.push(notice);
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(notices)
}
