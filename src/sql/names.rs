//! Output names as PostgreSQL gives them: `count`, `sum`, `?column?`, and the same name twice.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, DataType, Expr, Function, Ident, OrderBy, OrderByKind, Query, Select, SelectItem,
    SetExpr, Subscript, TableFactor, Value,
};

/// Between a name and what makes it unique inside the engine; it is cut off on the way out.
const MARK: char = '\u{1}';

/// The name to show for a column of a plan.
pub(super) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// Gives every unnamed expression of every select list its PostgreSQL name.
pub(super) fn name_query(query: &mut Query) {
    name_query_at(query, true);
    if let SetExpr::Select(select) = query.body.as_mut()
        && has_wildcard(select)
    {
        part_from_wildcard(select, query.order_by.as_mut());
    }
}

/// The same for a view, whose columns are names that others use.
pub(super) fn name_view(query: &mut Query) {
    name_query_at(query, true);
}

fn name_query_at(query: &mut Query, is_outermost: bool) {
    if let Some(with) = &mut query.with {
        for cte in &mut with.cte_tables {
            name_query_at(&mut cte.query, false);
        }
    }
    name_set(&mut query.body, is_outermost);
}

fn has_wildcard(select: &Select) -> bool {
    let is_wildcard = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    select.projection.len() > 1 && select.projection.iter().any(is_wildcard)
}

/// `SELECT *, x`: the other items get names that no column has, for the engine wants them to differ.
fn part_from_wildcard(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let mut renamed: Vec<(String, Ident)> = Vec::new();
    for (i, item) in select.projection.iter_mut().enumerate() {
        let (expr, name, is_given) = match item {
            SelectItem::UnnamedExpr(expr) => {
                (expr.clone(), figured(expr).unwrap_or_else(|| "?column?".to_owned()), false)
            }
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), folded(alias), true),
            _ => continue,
        };
        let shown_name = shown(&name).to_owned();
        let alias = Ident::with_quote('"', format!("{shown_name}{MARK}{i}"));
        if is_given {
            renamed.push((shown_name, alias.clone()));
        }
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
    let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order_by else { return };
    for key in keys {
        if let Expr::Identifier(name) = &mut key.expr
            && let Some((_, alias)) = renamed.iter().find(|(given, _)| *given == folded(name))
        {
            *name = alias.clone();
        }
    }
}

fn name_set(body: &mut SetExpr, is_outermost: bool) {
    match body {
        SetExpr::Select(select) => name_select(select, is_outermost),
        SetExpr::Query(query) => name_query_at(query, is_outermost),
        SetExpr::SetOperation { left, right, .. } => {
            name_set(left, is_outermost);
            name_set(right, is_outermost);
        }
        _ => {}
    }
}

fn name_select(select: &mut Select, is_outermost: bool) {
    for table in &mut select.from {
        name_factor(&mut table.relation);
        for join in &mut table.joins {
            name_factor(&mut join.relation);
        }
    }
    let mut used: Vec<String> = Vec::new();
    for item in &mut select.projection {
        let (name, is_plain) = match item {
            SelectItem::UnnamedExpr(expr) => {
                (figured(expr).unwrap_or_else(|| "?column?".to_owned()), is_column(expr))
            }
            SelectItem::ExprWithAlias { alias, .. } => (folded(alias), false),
            _ => continue,
        };
        let is_repeated = used.contains(&name);
        let unique = if is_repeated { format!("{name}{MARK}{}", used.len()) } else { name.clone() };
        used.push(name);
        let alias = || Ident::with_quote('"', unique.clone());
        match item {
            // A plain column keeps its table, so that ORDER BY t.x still finds it.
            SelectItem::UnnamedExpr(expr) if !is_plain || (is_repeated && is_outermost) => {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: alias() };
            }
            SelectItem::ExprWithAlias { alias: given, .. } if is_repeated && is_outermost => {
                *given = alias()
            }
            _ => {}
        }
    }
}

fn name_factor(factor: &mut TableFactor) {
    match factor {
        TableFactor::Derived { subquery, .. } => name_query_at(subquery, false),
        TableFactor::NestedJoin { table_with_joins, .. } => {
            name_factor(&mut table_with_joins.relation);
            for join in &mut table_with_joins.joins {
                name_factor(&mut join.relation);
            }
        }
        _ => {}
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// A name as it is stored: folded unless quoted.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// PostgreSQL's FigureColname; `None` is `?column?`.
fn figured(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(folded(name)),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded),
        Expr::Function(Function { name, .. }) => name.0.last()?.as_ident().map(folded),
        // The last field, or what has the elements.
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(name)) => Some(folded(name)),
                AccessExpr::Subscript(Subscript::Index { index: Expr::Value(value) }) => {
                    match &value.value {
                        Value::SingleQuotedString(name) => Some(name.clone()),
                        _ => None,
                    }
                }
                _ => None,
            });
            field.or_else(|| figured(root))
        }
        Expr::Cast { expr, data_type, .. } => figured(expr).or_else(|| Some(type_name(data_type))),
        Expr::Nested(expr) | Expr::Collate { expr, .. } => figured(expr),
        Expr::AtTimeZone { .. } => Some("timezone".to_owned()),
        Expr::Case { else_result, .. } => else_result
            .as_deref()
            .and_then(figured)
            .filter(|_| else_result.as_deref().is_some_and(is_column))
            .or(Some("case".to_owned())),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Interval(_) => Some("interval".to_owned()),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => figured(expr),
                SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                _ => None,
            },
            _ => None,
        },
        Expr::TypedString(typed) => Some(type_name(&typed.data_type)),
        _ => None,
    }
}

fn type_name(data_type: &DataType) -> String {
    let text = data_type.to_string().to_lowercase();
    match text.split(['(', ' ']).next().unwrap_or("") {
        "bigint" => "int8".to_owned(),
        "int" | "integer" => "int4".to_owned(),
        "smallint" => "int2".to_owned(),
        "boolean" => "bool".to_owned(),
        "double" => "float8".to_owned(),
        "real" => "float4".to_owned(),
        "decimal" => "numeric".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::parse_query;

    fn names(sql: &str) -> Vec<String> {
        let mut query = parse_query(sql).unwrap();
        name_query(&mut query);
        let SetExpr::Select(select) = query.body.as_ref() else { panic!("a select") };
        let name = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { alias, .. } => shown(&alias.value).to_owned(),
            SelectItem::UnnamedExpr(expr) => expr.to_string(),
            other => other.to_string(),
        };
        select.projection.iter().map(name).collect()
    }

    #[test]
    fn names_are_postgresqls() {
        assert_eq!(
            names(
                "SELECT count(*), sum(x), 1, 'a', x::text, CASE WHEN a THEN 1 END, date '2011-01-01'"
            ),
            ["count", "sum", "?column?", "?column?", "x", "case", "date"]
        );
        assert_eq!(
            names("SELECT id, id, t.id, NULL, NULL FROM t"),
            ["id", "id", "id", "?column?", "?column?"]
        );
        assert_eq!(names("SELECT (fit(x)).r, (f).p.q, a[1] FROM t"), ["r", "q", "a"]);
    }
}
