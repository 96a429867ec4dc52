//! Casts, functions of time and lists, given PostgreSQL's meaning after a statement is planned and before its types are
//! made to fit.

use std::sync::Arc;

use arrow::datatypes::DataType;
use clientele_udfs::pg::checked::{Checked, Operation};
use clientele_udfs::pg::fraction_part::{FIELDS, FractionPart};
use clientele_udfs::pg::round_half::RoundHalf;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, cast};
use datafusion::prelude::lit;

use super::kinds::{Operand, ValueKind, call, in_zone, meet, micros, read_as};
use super::operators::text_of;

/// How a statement is to be understood.
pub(super) struct Semantics<'a> {
    /// The zone of its days.
    pub(super) zone: &'a str,
    /// Whether it asks the catalogue, and may compare what it likes.
    pub(super) is_lenient: bool,
}

impl Semantics<'_> {
    /// Rewrites every expression of a plan; a plan that was rewritten before stays as it is, as those of views do.
    pub(super) fn apply(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|node| self.apply_to(node))?.data)
    }

    fn apply_to(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let rewritten = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|e| self.rewrite(e, &schema))?;
            Ok(rewritten.update_data(|e| name.restore(e)))
        })?;
        let rewritten = rewritten.transform_data(|node| self.meet_keys(node))?;
        rewritten.map_data(LogicalPlan::recompute_schema)
    }

    /// The two sides of a join's keys meet like those of a comparison.
    fn meet_keys(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(mut join) = node else { return Ok(Transformed::no(node)) };
        let mut on = Vec::with_capacity(join.on.len());
        for (left, right) in join.on {
            let side = |expr: &Expr, plan: &Arc<LogicalPlan>| expr.get_type(plan.schema());
            let types = (side(&left, &join.left), side(&right, &join.right));
            on.push(match types {
                (Ok(l), Ok(r)) => {
                    let left = Operand { expr: left, data_type: l };
                    let right = Operand { expr: right, data_type: r };
                    meet("=", left, right, self.zone, self.is_lenient)?
                }
                _ => (left, right),
            });
        }
        join.on = on;
        Ok(Transformed::yes(LogicalPlan::Join(join)))
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let rewritten = match &expr {
            Expr::Cast(c) => self.cast(c, schema),
            Expr::ScalarFunction(function) => self.function(function, schema),
            Expr::BinaryExpr(binary) => self.comparison(binary, schema)?,
            Expr::Between(between) => self.between(between, schema)?,
            Expr::InList(list) => self.in_list(list, schema)?,
            Expr::Negative(inner) if !matches!(inner.as_ref(), Expr::Literal(..)) => {
                let is_int = kind_of(inner, schema) == Some(ValueKind::Int);
                let zero = lit(ScalarValue::Int16(Some(0)));
                is_int.then(|| Checked::of(Operation::Subtract, zero, inner.as_ref().clone()))
            }
            _ => None,
        };
        Ok(rewritten.map_or_else(|| Transformed::no(expr), Transformed::yes))
    }

    fn cast(&self, c: &Cast, schema: &DFSchema) -> Option<Expr> {
        use ValueKind::{Date, Decimal, Float, Instant, Int, Text, Time};
        let inner = || c.expr.as_ref().clone();
        let to = c.field.data_type();
        let (from, target) = (kind_of(&c.expr, schema)?, ValueKind::of(to));
        let rewritten = match (from, target) {
            (Instant, Time) => in_zone(inner(), self.zone),
            (Instant, Date) => cast(in_zone(inner(), self.zone), to.clone()),
            (Time | Date, Instant) => in_zone(inner(), self.zone),
            (Text, Date | Time | Instant) => read_as(target, inner(), self.zone),
            (Decimal | Float, Int) => {
                let is_whole =
                    matches!(&*c.expr, Expr::ScalarFunction(f) if f.name() == "round_half");
                if is_whole {
                    return None;
                }
                cast(call(RoundHalf::new(), vec![inner()]), to.clone())
            }
            // Integers and NUMERIC are written alike; a native cast of them can still be pruned by.
            (Text | Int | Decimal | ValueKind::Boolean | ValueKind::Null, Text) => return None,
            (_, Text) => text_of(inner(), self.zone),
            _ => return None,
        };
        Some(rewritten)
    }

    fn function(&self, function: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
        let args = &function.args;
        let kind = |at: usize| args.get(at).and_then(|a| kind_of(a, schema));
        let again = |args: Vec<Expr>| Arc::clone(&function.func).call(args);
        let local = |time: &Expr| in_zone(time.clone(), self.zone);
        match (function.name(), args.as_slice()) {
            ("date_trunc", [unit, time]) if kind(1) == Some(ValueKind::Instant) => {
                Some(in_zone(again(vec![unit.clone(), local(time)]), self.zone))
            }
            ("date_part", [field, time]) => {
                let is_instant = match kind(1)? {
                    ValueKind::Instant => true,
                    ValueKind::Date | ValueKind::Time => false,
                    _ => return None,
                };
                let name = match field {
                    Expr::Literal(name, _) => name.try_as_str().flatten()?.to_lowercase(),
                    _ => return None,
                };
                let name = name.strip_suffix('s').filter(|n| *n == "second").unwrap_or(&name);
                // Seconds since 1970 are the same in every zone.
                let time = if is_instant && name != "epoch" { local(time) } else { time.clone() };
                if FIELDS.contains(&name) {
                    return Some(call(FractionPart::new(), vec![lit(name), time]));
                }
                is_instant.then(|| again(vec![field.clone(), time]))
            }
            // Floats go to the nearest even number, as in a cast.
            ("round", [float]) if kind(0) == Some(ValueKind::Float) => {
                Some(call(RoundHalf::new(), vec![float.clone()]))
            }
            ("to_char", [time, template]) if kind(0) == Some(ValueKind::Instant) => {
                Some(again(vec![local(time), template.clone()]))
            }
            ("to_timestamp", [text, template]) => {
                Some(again(vec![text.clone(), template.clone(), lit(self.zone)]))
            }
            ("current_date" | "today", []) => {
                let mut options = ConfigOptions::default();
                options.execution.time_zone = Some("UTC".to_owned());
                let now = datafusion::functions::datetime::now(&options);
                Some(cast(in_zone(now.call(vec![]), self.zone), DataType::Date32))
            }
            ("concat" | "concat_ws", _) => {
                let mut changed = false;
                let mut text = |arg: &Expr| match kind_of(arg, schema) {
                    Some(
                        ValueKind::Time
                        | ValueKind::Instant
                        | ValueKind::Float
                        | ValueKind::Span
                        | ValueKind::Date,
                    ) => {
                        changed = true;
                        text_of(arg.clone(), self.zone)
                    }
                    _ => arg.clone(),
                };
                let args: Vec<Expr> = args.iter().map(&mut text).collect();
                changed.then(|| again(args))
            }
            _ => None,
        }
    }

    fn operands(&self, left: &Expr, right: &Expr, schema: &DFSchema) -> Option<(Operand, Operand)> {
        let operand = |expr: &Expr| {
            Some(Operand { expr: expr.clone(), data_type: expr.get_type(schema).ok()? })
        };
        Some((operand(left)?, operand(right)?))
    }

    fn comparison(&self, binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
        let is_comparison = matches!(
            binary.op,
            Operator::Eq
                | Operator::NotEq
                | Operator::Lt
                | Operator::LtEq
                | Operator::Gt
                | Operator::GtEq
                | Operator::IsDistinctFrom
                | Operator::IsNotDistinctFrom
        );
        if !is_comparison {
            return Ok(None);
        }
        let Some((left, right)) = self.operands(&binary.left, &binary.right, schema) else {
            return Ok(None);
        };
        let symbol = binary.op.to_string();
        let (left, right) = meet(&symbol, left, right, self.zone, self.is_lenient)?;
        let is_same = left == *binary.left && right == *binary.right;
        Ok((!is_same).then(|| binary_expr(left, binary.op, right)))
    }

    fn between(&self, between: &Between, schema: &DFSchema) -> Result<Option<Expr>> {
        let low = self.operands(&between.expr, &between.low, schema);
        let high = self.operands(&between.expr, &between.high, schema);
        let (Some(low), Some(high)) = (low, high) else { return Ok(None) };
        let low = meet(">=", low.0, low.1, self.zone, self.is_lenient)?;
        let high = meet("<=", high.0, high.1, self.zone, self.is_lenient)?;
        if low.0 == high.0 {
            return Ok(Some(Expr::Between(Between::new(
                Box::new(low.0),
                between.negated,
                Box::new(low.1),
                Box::new(high.1),
            ))));
        }
        let above = binary_expr(low.0, Operator::GtEq, low.1);
        let both = above.and(binary_expr(high.0, Operator::LtEq, high.1));
        Ok(Some(if between.negated { !both } else { both }))
    }

    fn in_list(&self, list: &InList, schema: &DFSchema) -> Result<Option<Expr>> {
        let mut items = Vec::with_capacity(list.list.len());
        let mut changed = false;
        for item in &list.list {
            let Some((left, right)) = self.operands(&list.expr, item, schema) else {
                return Ok(None);
            };
            let (left, right) = meet("=", left, right, self.zone, self.is_lenient)?;
            // An item that changes the other side changes it for all; the engine's own rule serves there.
            if left != *list.expr {
                return Ok(None);
            }
            changed |= right != *item;
            items.push(right);
        }
        let list = || InList::new(list.expr.clone(), items, list.negated);
        Ok(changed.then(|| Expr::InList(list())))
    }
}

fn kind_of(expr: &Expr, schema: &DFSchema) -> Option<ValueKind> {
    expr.get_type(schema).ok().map(|t| ValueKind::of(&t))
}

/// A column of rows that are inserted, in the type of the table's column where the meaning of the session counts.
pub(super) fn inserted(column: Expr, from: &DataType, to: &DataType) -> Expr {
    use ValueKind::{Date, Decimal, Float, Instant, Int, Text, Time};
    let is_ours = match (ValueKind::of(from), ValueKind::of(to)) {
        (Text, Date | Time | Instant) | (Date | Time, Instant) | (Instant, Date | Time) => true,
        (Decimal | Float, Int) => true,
        (Text, Text) => false,
        (_, Text) => true,
        _ => false,
    };
    if !is_ours {
        return column;
    }
    // Stored times are microseconds, whatever precision the column is declared with.
    match ValueKind::of(to) {
        Time => cast(column, micros()),
        _ => cast(column, to.clone()),
    }
}
