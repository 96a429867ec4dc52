//! PostgreSQL's spellings that the engine reads otherwise or not at all.

use clientele_tree::{Node, NodeMut, Tree};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Array, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, LimitClause, ObjectName,
    ObjectNamePart, Query, Statement, Subscript, TableAliasColumnDef, TableFactor, TimezoneInfo,
    Value, ValueWithSpan,
};

use super::{catalogue, names, rfm_blocks};
use crate::error::{Error, Result};

/// Rewrites a statement before it is planned.
pub(super) fn rewrite(statement: &mut Statement) -> Result<()> {
    refuse_unknown(statement)?;
    explain_options(statement)?;
    respell_all(statement);
    if let Statement::Query(query) = statement {
        names::name_query(query);
    }
    if let Statement::Explain { statement, .. } = statement
        && let Statement::Query(query) = statement.as_mut()
    {
        names::name_query(query);
    }
    Ok(())
}

fn respell_all(statement: &mut Statement) {
    if catalogue::is_about_catalogue(statement) {
        catalogue::simplify(statement);
    }
    statement.change_all(|node| match node {
        NodeMut::Expr(expr) => respell(expr),
        NodeMut::Query(query) => {
            rfm_blocks::name_columns(query);
            fetch_is_limit(query);
        }
        NodeMut::Factor(factor) => name_series(factor),
    });
}

/// `FETCH FIRST n ROWS ONLY` is LIMIT n.
fn fetch_is_limit(query: &mut Query) {
    let is_plain = query.fetch.as_ref().is_some_and(|fetch| !fetch.with_ties && !fetch.percent);
    let offset = match &query.limit_clause {
        None => None,
        Some(LimitClause::LimitOffset { limit: None, offset, .. }) => offset.clone(),
        Some(_) => return,
    };
    if is_plain && let Some(fetch) = query.fetch.take() {
        let one = || Expr::Value(Value::Number("1".to_owned(), false).into());
        let limit = Some(fetch.quantity.unwrap_or_else(one));
        query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: vec![] });
    }
}

/// The one column of `generate_series(...) AS g` has the alias for its name.
fn name_series(factor: &mut TableFactor) {
    let TableFactor::Table { name, args: Some(_), alias: Some(alias), .. } = factor else { return };
    let called = name.0.last().and_then(|part| part.as_ident());
    if called.is_some_and(|ident| ident.value.eq_ignore_ascii_case("generate_series"))
        && alias.columns.is_empty()
    {
        let column = TableAliasColumnDef { name: alias.name.clone(), data_type: None };
        alias.columns.push(column);
    }
}

/// What the engine reads over in silence.
fn refuse_unknown(statement: &Statement) -> Result<()> {
    let is_sampled =
        |node: Node<'_>| matches!(node, Node::Factor(TableFactor::Table { sample: Some(_), .. }));
    if statement.any(is_sampled) {
        return Err(Error::not_supported("TABLESAMPLE is not supported")
            .hint("WHERE random() < 0.1 takes about a tenth of the rows"));
    }
    Ok(())
}

/// `EXPLAIN (ANALYZE, VERBOSE)`: options in brackets as words.
fn explain_options(statement: &mut Statement) -> Result<()> {
    let Statement::Explain { analyze, verbose, options, .. } = statement else { return Ok(()) };
    for option in options.take().unwrap_or_default() {
        let is_on = option.arg.as_ref().is_none_or(|arg| {
            !["off", "false", "0"].contains(&arg.to_string().to_lowercase().as_str())
        });
        match option.name.value.to_lowercase().as_str() {
            "analyze" => *analyze |= is_on,
            "verbose" => *verbose |= is_on,
            "format"
                if option
                    .arg
                    .as_ref()
                    .is_none_or(|arg| !arg.to_string().eq_ignore_ascii_case("text")) =>
            {
                return Err(Error::not_supported("EXPLAIN gives its plan as text only"));
            }
            // Costs, buffers and timing: the plan shows what it has.
            _ => {}
        }
    }
    Ok(())
}

/// Rewrites a view's query.
pub(super) fn rewrite_query(query: Query) -> Result<Query> {
    let mut statement = Statement::Query(Box::new(query));
    refuse_unknown(&statement)?;
    respell_all(&mut statement);
    if let Statement::Query(query) = &mut statement {
        names::name_view(query);
    }
    match statement {
        Statement::Query(query) => Ok(*query),
        other => Err(Error::internal(format!("a query became {other}"))),
    }
}

/// PostgreSQL's spelling of one expression becomes the engine's.
fn respell(expr: &mut Expr) {
    if let Expr::Function(function) = expr
        && let Some(meant) = rfm_blocks::meant(function)
    {
        *expr = meant;
    }
    match expr {
        // Text is compared by its code points everywhere: there is one collation.
        Expr::Collate { expr: inner, .. } => *expr = inner.as_ref().clone(),
        Expr::BinaryOp { op, .. } => {
            if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                && let Some(known) = parts.last().and_then(|symbol| custom_operator(symbol))
            {
                *op = known;
            }
        }
        Expr::Cast {
            expr: inner,
            data_type: DataType::Regclass,
            kind: CastKind::DoubleColon | CastKind::Cast,
            ..
        } => {
            let is_name = matches!(inner.as_ref(), Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)));
            *expr = call(
                if is_name { "regclass_oid" } else { "regclass_name" },
                vec![inner.as_ref().clone()],
            );
        }
        Expr::Value(value) => {
            if let Value::Number(digits, _) = &value.value
                && let Some(plain) = without_exponent(digits)
            {
                *expr = plain;
            }
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            escape_with_backslashes(pattern, escape_char);
        }
        Expr::SimilarTo { negated, expr: text, pattern, escape_char } => {
            if let Some(regex) = similar_to_regex(pattern, escape_char.as_ref()) {
                let op = match negated {
                    true => BinaryOperator::PGRegexNotMatch,
                    false => BinaryOperator::PGRegexMatch,
                };
                let right = Box::new(Expr::Value(Value::SingleQuotedString(regex).into()));
                *expr = Expr::BinaryOp { left: text.clone(), op, right };
            }
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            let zone_and_time = vec![time_zone.as_ref().clone(), timestamp.as_ref().clone()];
            *expr = call("timezone", zone_and_time);
        }
        // (path).level is a field of a record.
        Expr::CompoundFieldAccess { access_chain, .. } => {
            for access in access_chain {
                if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                    let name = match field.quote_style {
                        Some(_) => field.value.clone(),
                        None => field.value.to_lowercase(),
                    };
                    let index = Expr::Value(Value::SingleQuotedString(name).into());
                    *access = AccessExpr::Subscript(Subscript::Index { index });
                }
            }
        }
        Expr::Function(function) if is_called(function, "mod") => {
            if let Some([left, right]) = arguments(function) {
                let op = BinaryOperator::Modulo;
                let nested = |side: Expr| Box::new(Expr::Nested(Box::new(side)));
                *expr = Expr::Nested(Box::new(Expr::BinaryOp {
                    left: nested(left),
                    op,
                    right: nested(right),
                }));
            }
        }
        // A type's name as a function is a cast.
        Expr::Function(function) if is_called(function, "date") => {
            if let Some([value]) = arguments(function) {
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(value),
                    data_type: DataType::Date,
                    format: None,
                    array: false,
                };
            }
        }
        Expr::Function(function) if is_called(function, "localtimestamp") => {
            let now = call("now", vec![]);
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(now),
                data_type: DataType::Timestamp(None, TimezoneInfo::None),
                format: None,
                array: false,
            };
        }
        Expr::Function(function) => rewrite_function(function),
        // A list of values is what the engine prunes by; = ANY is how drivers send one.
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
            if let Some(list) = array_values(right) {
                *expr = Expr::InList { expr: left.clone(), list, negated: false };
            }
        }
        Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
            if let Some(list) = array_values(right) {
                *expr = Expr::InList { expr: left.clone(), list, negated: true };
            }
        }
        _ => {}
    }
}

/// The elements of an array that is written out, in brackets or as text.
fn array_values(array: &Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Array(Array { elem, .. }) if !elem.is_empty() => Some(elem.clone()),
        Expr::Nested(inner) => array_values(inner),
        Expr::Cast { expr, data_type: DataType::Array(_), .. } => array_values(expr),
        Expr::Value(value) => {
            let elements =
                clientele_udfs::pg::text::array_elements(&value.value.clone().into_string()?)?;
            let element = |text: Option<String>| {
                Expr::Value(text.map_or(Value::Null, Value::SingleQuotedString).into())
            };
            (!elements.is_empty()).then(|| elements.into_iter().map(element).collect())
        }
        _ => None,
    }
}

/// A number without its exponent, which the engine reads as a NUMERIC of a scale that its functions do not know; a very large
/// or small one is a float.
fn without_exponent(number: &str) -> Option<Expr> {
    const PLACES_MAX: i32 = 20;
    let (mantissa, exponent) = number.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if exponent.abs() > PLACES_MAX {
        let text = Value::SingleQuotedString(number.to_owned());
        return Some(Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(Expr::Value(text.into())),
            data_type: DataType::DoublePrecision,
            format: None,
            array: false,
        });
    }
    let zeros = "0".repeat(PLACES_MAX as usize);
    let digits = format!("{zeros}{whole}{fraction}{zeros}");
    let point = (PLACES_MAX + whole.len() as i32 + exponent) as usize;
    let whole = digits.get(..point)?.trim_start_matches('0');
    let fraction = digits.get(point..)?.trim_end_matches('0');
    let or_zero = |part: &str| if part.is_empty() { "0".to_owned() } else { part.to_owned() };
    // With a point it stays what it was: no integer.
    let plain = format!("{}.{}", or_zero(whole), or_zero(fraction));
    Some(Expr::Value(Value::Number(plain, false).into()))
}

/// The regular expression of a constant pattern of SIMILAR TO, which is about the whole text.
fn similar_to_regex(pattern: &Expr, escape: Option<&ValueWithSpan>) -> Option<String> {
    let Expr::Value(pattern) = pattern else { return None };
    let Value::SingleQuotedString(pattern) = &pattern.value else { return None };
    let escape = match escape.map(|e| e.value.clone().into_string()) {
        None => Some('\\'),
        Some(text) => text?.chars().next(),
    };
    let mut regex = String::from("^(?:");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                let literal = chars.next()?;
                regex.push_str(&format!("\\x{{{:x}}}", u32::from(literal)));
            }
            '%' => regex.push_str("(?s:.*)"),
            '_' => regex.push_str("(?s:.)"),
            '.' | '^' | '$' | '\\' => {
                regex.push('\\');
                regex.push(c);
            }
            c => regex.push(c),
        }
    }
    regex.push_str(")$");
    Some(regex)
}

/// The engine's LIKE escapes with a backslash and no other letter: a constant pattern is written so.
fn escape_with_backslashes(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let Some(given) = escape.as_ref().and_then(|e| e.value.clone().into_string()) else { return };
    let mut letters = given.chars();
    let (letter, None) = (letters.next(), letters.next()) else { return };
    if letter == Some('\\') {
        return;
    }
    *escape = None;
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = pattern else {
        // A letter that escapes itself needs no escape: it goes by another one meanwhile.
        const MEANWHILE: char = '\u{1}';
        let twice = given.repeat(2);
        let steps = [
            ("\\".to_owned(), "\\\\".to_owned()),
            (twice, MEANWHILE.to_string()),
            (given.clone(), "\\".to_owned()),
            (MEANWHILE.to_string(), given),
        ];
        let text = |text: String| Expr::Value(Value::SingleQuotedString(text).into());
        for (from, to) in steps.into_iter().filter(|(from, _)| !from.is_empty()) {
            *pattern = call("replace", vec![pattern.clone(), text(from), text(to)]);
        }
        return;
    };
    let mut respelt = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == letter => {
                respelt.push('\\');
                respelt.extend(chars.next());
            }
            '\\' => respelt.push_str("\\\\"),
            c => respelt.push(c),
        }
    }
    *text = respelt;
}

fn custom_operator(symbol: &str) -> Option<BinaryOperator> {
    Some(match symbol {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "+" => BinaryOperator::Plus,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let unnamed = |argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument));
    let args = arguments.into_iter().map(unnamed).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn is_called(function: &Function, name: &str) -> bool {
    let called = function.name.0.last().and_then(|part| part.as_ident());
    called.is_some_and(|ident| ident.value.eq_ignore_ascii_case(name))
}

/// The arguments of a call that has as many.
fn arguments<const N: usize>(function: &Function) -> Option<[Expr; N]> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect::<Option<Vec<Expr>>>()?.try_into().ok()
}

/// PostgreSQL's names of functions that the engine has under another.
const OTHER_NAMES: [(&str, &str); 3] =
    [("every", "bool_and"), ("variance", "var_samp"), ("gen_random_uuid", "uuid")];

fn rewrite_function(function: &mut Function) {
    // Functions live in pg_catalog; the prefix says nothing.
    if function.name.0.len() == 2
        && matches!(&function.name.0[0], ObjectNamePart::Identifier(schema) if schema.value.eq_ignore_ascii_case("pg_catalog"))
    {
        function.name.0.remove(0);
    }
    let name =
        function.name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.to_lowercase());
    if let Some((_, ours)) = OTHER_NAMES.iter().find(|(theirs, _)| name.as_deref() == Some(*theirs))
    {
        function.name = ObjectName::from(vec![Ident::new(*ours)]);
    }
    let FunctionArguments::List(list) = &mut function.args else { return };
    // The digits of a second that are wanted; it has six.
    if name.as_deref() == Some("current_timestamp") && list.args.len() == 1 {
        list.args.clear();
    }
    // retention(ARRAY[a, b]) and retention(a, b) are one function, with a dialect before them or without.
    if name.as_deref() == Some("retention")
        && list.args.len() <= 2
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Array(Array {
            elem, ..
        })))) = list.args.last()
    {
        let unnamed = |e: &Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(e.clone()));
        let elements: Vec<FunctionArg> = elem.iter().map(unnamed).collect();
        list.args.pop();
        list.args.extend(elements);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::parse_query;

    fn rewritten(sql: &str) -> String {
        rewrite_query(parse_query(sql).unwrap()).unwrap().to_string()
    }

    #[test]
    fn postgresqls_spellings_become_the_engines() {
        assert_eq!(
            rewritten(
                "SELECT a FROM t WHERE a OPERATOR(pg_catalog.~) '^x$' COLLATE pg_catalog.default"
            ),
            "SELECT a FROM t WHERE a ~ '^x$'"
        );
        assert_eq!(
            rewritten("SELECT a FROM t WHERE a = ANY('{x,\"y z\"}') AND b <> ALL(ARRAY[1, 2])"),
            "SELECT a FROM t WHERE a IN ('x', 'y z') AND b NOT IN (1, 2)"
        );
        assert_eq!(
            rewritten("SELECT retention(ARRAY[a, b]) AS r, pg_catalog.lower(c) AS l FROM t"),
            "SELECT retention(a, b) AS r, lower(c) AS l FROM t"
        );
    }
}
