//! `SET funnel_dialect`, and windows whose unit nobody said.

use clientele_tree::{Node, NodeMut, Tree};
use clientele_udfs::funnel::dialect::{Dialect, silent_unit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};

use crate::dialect;
use crate::error::Result;

/// Functions that other engines have, too, and answer otherwise. Those that only we have are always exact.
const OF_OTHERS: [&str; 15] = [
    "window_funnel",
    "windowfunnel",
    "window_funnel_state",
    "windowfunnelstate",
    "retention",
    "sequence_match",
    "sequencematch",
    "sequence_match_state",
    "sequencematchstate",
    "sequence_count",
    "sequencecount",
    "sequence_count_state",
    "sequencecountstate",
    "sequence_match_events",
    "sequencematchevents",
];

/// Functions whose window may be a bare number.
const WITH_WINDOW: [&str; 8] = [
    "window_funnel",
    "windowfunnel",
    "window_funnel_state",
    "windowfunnelstate",
    "funnel_path",
    "funnel_path_state",
    "funnel_attempts",
    "funnel_attempts_state",
];

fn called(function: &ast::Function) -> Option<String> {
    Some(function.name.0.last()?.as_ident()?.value.to_lowercase())
}

/// Makes the session's dialect an argument of every call that does not name one.
pub(super) fn in_dialect(tree: &mut impl Tree, name: &str) -> Result<()> {
    if Dialect::of(name) == Some(Dialect::Exact) {
        return Ok(());
    }
    let argument = dialect::parse_expression(&dialect::literal(name))?;
    tree.change_all(|node| {
        let NodeMut::Expr(ast::Expr::Function(function)) = node else { return };
        if !called(function).is_some_and(|name| OF_OTHERS.contains(&name.as_str())) {
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
            if called(function).is_some_and(|name| WITH_WINDOW.contains(&name.as_str())))
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
                if !WITH_WINDOW.contains(&function) {
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
