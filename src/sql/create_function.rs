//! Table functions that users write: `CREATE FUNCTION name(argument type, ...) RETURNS TABLE (...) AS $$ SELECT ... $$`.
//!
//! A call is written out before the statement is planned, as a view's query is: the optimizer sees one query, and what the call
//! gives is what its body gives with the arguments in their places. An argument of type TABLE is a relation, so that a function can
//! be called as our own are: `f(orders, at_least => 3)`.

use std::collections::{BTreeMap, BTreeSet};

use clientele_tree::{Node, NodeMut, Tree};
use datafusion::sql::sqlparser::ast::{
    self, CreateFunctionBody, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionReturnType,
    Ident, ObjectName, Query, SelectItem, SetExpr, TableFactor, Value,
};

use super::Outcome;
use super::execute::{name_of, refuse_reserved};
use super::names::folded;
use super::rewrite::rewrite_query;
use crate::analysis;
use crate::catalog::DEFAULT_SCHEMA;
use crate::dialect;
use crate::error::{Error, Kind, Result, nearest};
use crate::identity;
use crate::session::Session;
use crate::store::{
    Change, FunctionArgument, FunctionColumn, FunctionDef, Generation, Name, Relation,
};

/// Deepest nesting of functions that call functions.
const DEPTH_MAX: usize = 16;

/// Most calls that one statement comes to, those within functions included.
const CALLS_MAX: usize = 200;

/// Functions of the engine that stand in FROM.
const OF_THE_ENGINE: [&str; 5] = ["generate_series", "range", "unnest", "flatten", "self_check"];

/// Makes a function.
pub(super) async fn create(session: &Session, create: &ast::CreateFunction) -> Result<Outcome> {
    let name = name_of(&create.name)?;
    refuse_reserved(&name)?;
    let def = read(&name, create)?;
    let body = dialect::parse_query(&def.sql).map_err(|error| in_body(&name, error))?;
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    check_relations(&name, &body, &newest)?;
    if def.arguments.is_empty() {
        // It can be planned as it is, so that a mistake is told to the one who makes it.
        let mut query = body_with(&name, &def, &[], 0)?;
        Expansion::new(&|wanted| function_of(&newest, wanted)).write_out(&mut query, 1)?;
        let planning = session.planning(&query.to_string(), &[]).await?;
        let state = planning.pinned().generation();
        let query = identity::expand_view(state, rewrite_query(query)?)?;
        planning.plan_query(query).map_err(|error| in_body(&name, error))?;
    }
    let replace = create.or_replace;
    warehouse
        .publish_names(|state| {
            match state.relations.get(&name) {
                None => {}
                Some(Relation::Function(_)) if replace => {}
                Some(Relation::Function(_)) => {
                    return Err(Error::new(
                        Kind::DuplicateFunction,
                        format!("function \"{name}\" already exists"),
                    )
                    .hint("CREATE OR REPLACE FUNCTION changes a function"));
                }
                Some(_) => {
                    return Err(Error::new(
                        Kind::DuplicateFunction,
                        format!("\"{name}\" is a relation; a function needs a name of its own"),
                    ));
                }
            }
            Ok(BTreeMap::from([(name.clone(), Change::Set(Relation::Function(def.clone())))]))
        })
        .await?;
    Ok(Outcome::Done("CREATE FUNCTION".to_owned()))
}

/// Drops functions.
pub(super) async fn drop(session: &Session, drop: &ast::DropFunction) -> Result<Outcome> {
    let named = |desc: &ast::FunctionDesc| Ok((name_of(&desc.name)?, desc.args.clone()));
    let names = drop.func_desc.iter().map(named).collect::<Result<Vec<_>>>()?;
    let mut missing = Vec::new();
    session
        .engine()
        .warehouse()
        .publish_names(|state| {
            missing.clear();
            let mut changes = BTreeMap::new();
            for (name, types) in &names {
                match state.relations.get(name) {
                    Some(Relation::Function(def)) if has_types(def, types.as_deref()) => {
                        changes.insert(name.clone(), Change::Dropped);
                    }
                    _ if drop.if_exists => missing.push(name.to_string()),
                    _ => {
                        return Err(Error::new(
                            Kind::UndefinedFunction,
                            format!("function \"{name}\" does not exist"),
                        )
                        .detail(match state.relations.get(name) {
                            Some(Relation::Function(def)) => {
                                format!("there is {}", signature(name, def))
                            }
                            _ => "there is none of that name".to_owned(),
                        }));
                    }
                }
            }
            Ok(changes)
        })
        .await?;
    let tag = "DROP FUNCTION".to_owned();
    if missing.is_empty() {
        return Ok(Outcome::Done(tag));
    }
    let notice = format!("function \"{}\" does not exist, skipping", missing.join("\", \""));
    Ok(Outcome::Noticed { tag, notice })
}

/// Whether a function's arguments are of `types`; no types are any.
fn has_types(def: &FunctionDef, types: Option<&[ast::OperateFunctionArg]>) -> bool {
    let Some(types) = types else { return true };
    let is_same = |(known, given): (&FunctionArgument, &ast::OperateFunctionArg)| {
        let parsed = |text: &str| super::parameters::declared_type(text).ok().flatten();
        match (&known.data_type, &given.data_type) {
            (None, DataType::Table(None)) => true,
            (Some(known), given) => parsed(known) == parsed(&given.to_string()),
            _ => false,
        }
    };
    def.arguments.len() == types.len() && def.arguments.iter().zip(types).all(is_same)
}

/// Writes out every call of a user's function in `tree`.
pub(super) async fn expand(session: &Session, tree: &mut impl Tree) -> Result<()> {
    let is_call = |node: Node<'_>| matches!(node, Node::Factor(factor) if called(factor).is_some());
    if !tree.any(is_call) {
        return Ok(());
    }
    let newest = session.engine().warehouse().newest().await?;
    Expansion::new(&|name| function_of(&newest, name)).write_out(tree, 0)
}

fn function_of(state: &Generation, name: &Name) -> Option<FunctionDef> {
    match state.relations.get(name) {
        Some(Relation::Function(def)) => Some(def.clone()),
        _ => None,
    }
}

/// The name of a function that is not ours and stands in FROM.
fn called(factor: &TableFactor) -> Option<Name> {
    let TableFactor::Table { name, args: Some(_), .. } = factor else { return None };
    name_of(name).ok().filter(|name| !is_ours(name))
}

/// Whether a function that stands in FROM is ours or the engine's.
fn is_ours(name: &Name) -> bool {
    let table = name.table.as_str();
    name.schema == DEFAULT_SCHEMA
        && (analysis::FUNCTIONS.contains(&table) || OF_THE_ENGINE.contains(&table))
}

/// Calls that are written out for one statement.
struct Expansion<'a> {
    function: &'a dyn Fn(&Name) -> Option<FunctionDef>,
    /// How many so far; each has names of its own in WITH, so that nobody's take another's place.
    calls: usize,
}

impl<'a> Expansion<'a> {
    fn new(function: &'a dyn Fn(&Name) -> Option<FunctionDef>) -> Self {
        Self { function, calls: 0 }
    }

    fn write_out(&mut self, tree: &mut impl Tree, depth: usize) -> Result<()> {
        tree.change(|node| {
            let NodeMut::Factor(factor) = node else { return Ok(()) };
            let Some(name) = called(factor) else { return Ok(()) };
            let Some(def) = (self.function)(&name) else { return Ok(()) };
            let TableFactor::Table { args: Some(args), alias, with_ordinality, sample, .. } =
                factor
            else {
                return Ok(());
            };
            if *with_ordinality || sample.is_some() {
                return Err(Error::not_supported(format!(
                    "function \"{name}\" is called without ORDINALITY and TABLESAMPLE"
                )));
            }
            self.calls += 1;
            if depth >= DEPTH_MAX || self.calls > CALLS_MAX {
                return Err(Error::new(
                    Kind::TooComplex,
                    format!("function \"{name}\" calls itself, or functions are nested too deeply"),
                )
                .detail(format!("{DEPTH_MAX} levels and {CALLS_MAX} calls are the most")));
            }
            let given = given(&name, &def, &args.args)?;
            let mut query = body_with(&name, &def, &given, self.calls)?;
            self.write_out(&mut query, depth + 1)?;
            let alias = alias.take().unwrap_or_else(|| alias_of(&name.table));
            *factor = TableFactor::Derived {
                lateral: false,
                subquery: Box::new(query),
                alias: Some(alias),
                sample: None,
            };
            Ok(())
        })
    }
}

fn alias_of(name: &str) -> ast::TableAlias {
    ast::TableAlias {
        explicit: false,
        name: Ident::with_quote('"', name),
        columns: vec![],
        at: None,
    }
}

/// What a call gives for each argument, in order.
fn given(name: &Name, def: &FunctionDef, args: &[FunctionArg]) -> Result<Vec<Expr>> {
    let misuse = |problem: String| {
        Err(Error::new(Kind::UndefinedFunction, format!("function {}: {problem}", name.table))
            .hint(signature(name, def)))
    };
    let mut given: Vec<Option<Expr>> = vec![None; def.arguments.len()];
    for (position, arg) in args.iter().enumerate() {
        let (at, expr) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                if position >= given.len() {
                    return misuse(format!("{} arguments are too many", args.len()));
                }
                if args[..position].iter().any(|arg| matches!(arg, FunctionArg::Named { .. })) {
                    return misuse("an argument without a name follows one with a name".to_owned());
                }
                (position, expr)
            }
            FunctionArg::Named { name: argument, arg: FunctionArgExpr::Expr(expr), .. } => {
                let wanted = folded(argument);
                match place_in(&def.arguments, &wanted) {
                    Some(at) => (at, expr),
                    None => {
                        let known: Vec<String> =
                            def.arguments.iter().map(|known| known.name.clone()).collect();
                        let near = nearest(&wanted, &known)
                            .map(|near| format!("; perhaps you mean {near}"))
                            .unwrap_or_default();
                        return misuse(format!("there is no argument \"{wanted}\"{near}"));
                    }
                }
            }
            other => return misuse(format!("{other} is no value")),
        };
        if given[at].replace(expr.clone()).is_some() {
            return misuse(format!("argument \"{}\" is given twice", def.arguments[at].name));
        }
    }
    let mut values = Vec::with_capacity(given.len());
    for (value, argument) in given.into_iter().zip(&def.arguments) {
        values.push(match (value, &argument.default) {
            (Some(value), _) => value,
            (None, Some(default)) => dialect::parse_expression(default)?,
            (None, None) => return misuse(format!("argument \"{}\" is missing", argument.name)),
        });
    }
    Ok(values)
}

/// `f(events TABLE, at_least INT DEFAULT 3)`, for errors.
fn signature(name: &Name, def: &FunctionDef) -> String {
    format!("{}({})", name.table, def.arguments_text())
}

/// The body with values in the places of its arguments, and columns of the types that were declared. `call` parts the names of its
/// WITH from those of other calls.
fn body_with(name: &Name, def: &FunctionDef, given: &[Expr], call: usize) -> Result<Query> {
    let mut body = dialect::parse_query(&def.sql).map_err(|error| in_body(name, error))?;
    let own = |wanted: &str| format!("__f{call}_{wanted}");
    let mut values = Vec::with_capacity(given.len());
    let mut relations = Vec::new();
    for (argument, expr) in def.arguments.iter().zip(given) {
        match &argument.data_type {
            Some(data_type) => {
                check_value(name, argument, expr)?;
                let value = typed(name, argument, expr, data_type)?;
                // A query is asked where the caller stands, whatever the body calls its own relations.
                values.push(Some(match has_query(&value) {
                    false => value,
                    true => {
                        let relation = format!("value {}", values.len());
                        let query = format!("SELECT {value} AS __value");
                        relations.push((relation.clone(), analysis::derived(&query)?));
                        let relation = dialect::quoted(&own(&relation));
                        dialect::parse_expression(&format!("(SELECT __value FROM {relation})"))?
                    }
                }));
            }
            None => {
                values.push(None);
                let relation = analysis::relation_of(&name.table, expr.clone())?;
                relations.push((argument.name.clone(), relation));
            }
        }
    }
    // Names first: values that are put in are the caller's, and mean what they mean there.
    let mut names = ctes_of(&body);
    names.extend(relations.iter().map(|(name, _)| name.clone()));
    rename(&mut body, &names, &own);
    let mut is_used = vec![false; values.len()];
    body.change(|node| {
        let NodeMut::Expr(expr) = node else { return Ok::<(), Error>(()) };
        let at = match expr {
            Expr::Identifier(ident) => place_in(&def.arguments, &folded(ident)),
            // PostgreSQL lets a function's name part its arguments from columns.
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [function, argument] if folded(function) == name.table => {
                    place_in(&def.arguments, &folded(argument))
                }
                _ => None,
            },
            Expr::Value(value) => match &value.value {
                Value::Placeholder(number) => number
                    .trim_start_matches('$')
                    .parse::<usize>()
                    .ok()
                    .and_then(|n| n.checked_sub(1)),
                _ => None,
            },
            _ => None,
        };
        if let Some((at, Some(value))) = at.and_then(|at| values.get(at).map(|value| (at, value))) {
            is_used[at] = true;
            *expr = value.clone();
        }
        Ok(())
    })?;
    for (relation, factor) in relations.into_iter().rev() {
        let all = dialect::parse_query(&format!("SELECT * FROM {factor}"))?;
        let relation = dialect::quoted(&own(&relation));
        let with = dialect::parse_query(&format!("WITH {relation} AS ({all}) SELECT 1"))?;
        let Some(mut with) = with.with else { return Err(Error::internal("a WITH has a WITH")) };
        if let Some(own) = body.with.take() {
            with.recursive |= own.recursive;
            with.cte_tables.extend(own.cte_tables);
        }
        body.with = Some(with);
    }
    let columns: Vec<String> = def.columns.iter().map(|c| dialect::quoted(&c.name)).collect();
    let casts: Vec<String> = { def.columns.iter().zip(&columns) }
        .map(|(column, name)| format!("CAST(\"__f\".{name} AS {}) AS {name}", column.data_type))
        .collect();
    let (casts, columns) = (casts.join(", "), columns.join(", "));
    // What the body does not use is a value of its type all the same, and a parameter one of the statement's.
    let unused = values.iter().zip(&is_used).filter(|(_, is_used)| !**is_used);
    let unused: Vec<String> = unused
        .filter_map(|(value, _)| value.as_ref())
        .map(|value| format!("CAST({value} AS TEXT) IS DISTINCT FROM '__none'"))
        .collect();
    let checked =
        if unused.is_empty() { String::new() } else { format!(" WHERE {}", unused.join(" AND ")) };
    dialect::parse_query(&format!("SELECT {casts} FROM ({body}) AS \"__f\"({columns}){checked}"))
}

fn has_query(expr: &Expr) -> bool {
    expr.any(|node| matches!(node, Node::Query(_)))
}

/// Gives names of WITH, and the relations that are read by them, other names; what was called so is still called so.
fn rename(body: &mut Query, names: &BTreeSet<String>, own: &dyn Fn(&str) -> String) {
    let renamed = |ident: &Ident| {
        let name = folded(ident);
        names.contains(&name).then(|| Ident::with_quote('"', own(&name)))
    };
    let rename_with = |query: &mut Query| {
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            if let Some(name) = renamed(&cte.alias.name) {
                cte.alias.name = name;
            }
        }
    };
    rename_with(body);
    body.change_all(|node| match node {
        NodeMut::Query(query) => rename_with(query),
        NodeMut::Factor(TableFactor::Table { name, args: None, alias, .. }) => {
            if let [part] = name.0.as_slice()
                && let Some(ident) = part.as_ident()
                && let Some(new) = renamed(ident)
            {
                alias.get_or_insert_with(|| alias_of(&folded(ident)));
                *name = ObjectName::from(vec![new]);
            }
        }
        NodeMut::Factor(TableFactor::Table { args: Some(args), .. }) => {
            for arg in &mut args.args {
                let (FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
                | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }) = arg
                else {
                    continue;
                };
                if let Expr::Identifier(ident) = expr
                    && let Some(new) = renamed(ident)
                {
                    *expr = Expr::Identifier(new);
                }
            }
        }
        _ => {}
    });
}

/// A value is one before any row is read: it has no columns, and is the same wherever the body uses it.
fn check_value(name: &Name, argument: &FunctionArgument, expr: &Expr) -> Result<()> {
    const CHANGING: [&str; 5] =
        ["random", "uuid", "gen_random_uuid", "clock_timestamp", "timeofday"];
    let mut problem = None;
    // A query in brackets has columns of its own.
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                problem = Some(Error::new(
                    Kind::UndefinedColumn,
                    format!(
                        "function {}: argument \"{}\": there is no column {expr} here",
                        name.table, argument.name
                    ),
                ).hint("an argument is a value: a constant, a parameter, or a query in brackets that gives one"));
            }
            Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::UnaryOp { expr, .. } => {
                open.push(expr)
            }
            Expr::BinaryOp { left, right, .. } => open.extend([left.as_ref(), right.as_ref()]),
            Expr::Array(array) => open.extend(&array.elem),
            Expr::Function(function) => {
                let called = function.name.to_string().to_lowercase();
                if CHANGING.contains(&called.as_str()) {
                    problem = Some(Error::not_supported(format!(
                        "function {}: argument \"{}\" calls {called}, which changes wherever it is used",
                        name.table, argument.name
                    )));
                }
                if let ast::FunctionArguments::List(list) = &function.args {
                    open.extend(list.args.iter().filter_map(|arg| match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
                        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => Some(expr),
                        _ => None,
                    }));
                }
            }
            _ => {}
        }
    }
    problem.map_or(Ok(()), Err)
}

/// A value in the type of its argument; a literal that has it is left as it is, for reports take texts as they are written.
fn typed(name: &Name, argument: &FunctionArgument, expr: &Expr, data_type: &str) -> Result<Expr> {
    let lower = data_type.to_lowercase();
    let is_text = ["text", "varchar"].contains(&lower.as_str());
    let is_array = data_type.ends_with("[]");
    let is_time =
        ["date", "timestamp", "interval", "bool"].iter().any(|kind| lower.starts_with(kind));
    if is_time && !is_array && is_number(expr) {
        return Err(Error::new(
            Kind::DatatypeMismatch,
            format!(
                "function {}: argument \"{}\" is {data_type}, {expr} is a number",
                name.table, argument.name
            ),
        )
        .hint("a day is written in quotes: '2024-05-01'"));
    }
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(_) if is_text => return Ok(expr.clone()),
            // As PostgreSQL reads an array from a text.
            Value::SingleQuotedString(text) if is_array => {
                if let Some(elements) = clientele_udfs::pg::text::array_elements(text) {
                    let element = |text: Option<String>| {
                        text.map_or("NULL".to_owned(), |text| dialect::literal(&text))
                    };
                    let elements: Vec<String> = elements.into_iter().map(element).collect();
                    let list = format!("ARRAY[{}]", elements.join(", "));
                    let is_texts = ["text[]", "varchar[]"].contains(&lower.as_str());
                    let list = if is_texts { list } else { format!("CAST({list} AS {data_type})") };
                    return dialect::parse_expression(&list);
                }
            }
            _ => {}
        },
        Expr::Array(_) if is_array => return Ok(expr.clone()),
        _ => {}
    }
    // A parameter that is bound later stands alone, too.
    dialect::parse_expression(&format!("CAST({expr} AS {data_type})"))
}

/// Whether an expression is made of numbers alone: 2024-05-01 is 2018, and no day.
fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        Expr::Nested(expr) | Expr::UnaryOp { expr, .. } => is_number(expr),
        Expr::BinaryOp { left, right, .. } => is_number(left) && is_number(right),
        _ => false,
    }
}

/// A place in the body means nothing in the statement.
fn in_body(name: &Name, error: Error) -> Error {
    let message = format!("function \"{}\": {}", name.table, error.message());
    let mut told = Error::new(error.kind(), message);
    if let Some(detail) = error.detail_text() {
        told = told.detail(detail);
    }
    match error.hint_text() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// The definition that a statement gives.
fn read(name: &Name, create: &ast::CreateFunction) -> Result<FunctionDef> {
    const FORM: &str = "CREATE FUNCTION f(events TABLE, at_least INT DEFAULT 1) RETURNS TABLE (customer TEXT, orders BIGINT) AS $$ SELECT ... $$";
    let wrong = |problem: &str| {
        Err(Error::new(Kind::InvalidFunction, format!("function \"{}\": {problem}", name.table))
            .hint(FORM))
    };
    if is_ours(name) {
        return Err(Error::new(
            Kind::DuplicateFunction,
            format!("function \"{}\" belongs to the warehouse", name.table),
        ));
    }
    let is_sql = |language: &Ident| language.value.eq_ignore_ascii_case("sql");
    if create.language.as_ref().is_some_and(|language| !is_sql(language)) {
        return Err(Error::not_supported("functions are written in SQL")
            .hint("LANGUAGE SQL, or no LANGUAGE"));
    }
    let is_strict = matches!(
        create.called_on_null,
        Some(ast::FunctionCalledOnNull::Strict | ast::FunctionCalledOnNull::ReturnsNullOnNullInput)
    );
    if create.temporary || !create.set_params.is_empty() || is_strict {
        return Err(Error::not_supported(
            "a function is not TEMPORARY, has no SET and is called with NULLs as well",
        ));
    }
    let Some(FunctionReturnType::DataType(DataType::Table(Some(columns)))) = &create.return_type
    else {
        return Err(Error::not_supported("a function returns a table")
            .hint("RETURNS TABLE (name type, ...)"));
    };
    let columns: Vec<FunctionColumn> = columns
        .iter()
        .map(|column| FunctionColumn {
            name: folded(&column.name),
            data_type: column.data_type.to_string(),
        })
        .collect();
    let arguments =
        create.args.iter().flatten().map(|arg| argument(name, arg)).collect::<Result<Vec<_>>>()?;
    let mut seen = BTreeSet::new();
    for column in &columns {
        super::parameters::declared_type(&column.data_type)?;
    }
    let first_default = arguments.iter().position(|argument| argument.default.is_some());
    if first_default
        .is_some_and(|at| arguments[at..].iter().any(|argument| argument.default.is_none()))
    {
        return wrong("arguments after one with a DEFAULT need one, too");
    }
    for argument in arguments.iter() {
        if let Some(default) = &argument.default {
            let default = dialect::parse_expression(default)?;
            check_value(name, argument, &default)?;
            typed(name, argument, &default, argument.data_type.as_deref().unwrap_or("text"))?;
        }
    }
    let names = arguments.iter().map(|a| &a.name).chain(columns.iter().map(|c| &c.name));
    if let Some(twice) = names.into_iter().find(|name| !seen.insert((*name).clone())) {
        return wrong(&format!("the name \"{twice}\" is used twice"));
    }
    let Some(CreateFunctionBody::AsBeforeOptions { body: Expr::Value(body), link_symbol: None }) =
        &create.function_body
    else {
        return wrong("its body is to be a query between $$ and $$");
    };
    let text = match &body.value {
        Value::DollarQuotedString(text) => text.value.clone(),
        Value::SingleQuotedString(text) => text.clone(),
        _ => return wrong("its body is to be a query between $$ and $$"),
    };
    let text = text.trim().trim_end_matches(';').to_owned();
    let mut query = dialect::parse_query(&text).map_err(|error| in_body(name, error))?;
    if let Some(items) = items_of(&query)
        && items != columns.len()
    {
        return wrong(&format!("its query gives {items} columns, {} are declared", columns.len()));
    }
    if !query.locks.is_empty()
        || query.any(|node| matches!(node, Node::Query(query) if is_into(query)))
    {
        return Err(Error::not_supported(
            "the query of a function reads: it has no INTO and no FOR UPDATE",
        ));
    }
    let highest = highest_placeholder(&query);
    if highest > arguments.len() {
        return wrong(&format!(
            "its body reads ${highest}, there are {} arguments",
            arguments.len()
        ));
    }
    name_relations(&mut query, &arguments)?;
    Ok(FunctionDef { arguments, columns, sql: query.to_string() })
}

fn argument(function: &Name, arg: &ast::OperateFunctionArg) -> Result<FunctionArgument> {
    let wrong = |problem: String| {
        Err(Error::new(
            Kind::InvalidFunction,
            format!("function \"{}\": {problem}", function.table),
        ))
    };
    if arg.mode.as_ref().is_some_and(|mode| *mode != ast::ArgMode::In) {
        return wrong(format!("argument {arg} is not IN"));
    }
    let Some(name) = &arg.name else { return wrong(format!("argument {arg} has no name")) };
    let name = match name.value.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => folded(name),
    };
    let data_type = match &arg.data_type {
        DataType::Table(None) => None,
        other => {
            // A type that does not exist is told now.
            super::parameters::declared_type(&other.to_string())?;
            Some(other.to_string())
        }
    };
    if data_type.is_none() && arg.default_expr.is_some() {
        return wrong(format!("argument \"{name}\" is a relation, which has no default"));
    }
    let default = arg.default_expr.as_ref().map(ToString::to_string);
    Ok(FunctionArgument { name, data_type, default })
}

/// How many columns a query gives, where its text tells.
fn items_of(query: &Query) -> Option<usize> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let is_plain = |item: &SelectItem| {
        matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
    };
    select.projection.iter().all(is_plain).then_some(select.projection.len())
}

fn is_into(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if select.into.is_some())
}

fn highest_placeholder(query: &Query) -> usize {
    let mut highest = 0;
    query.each(|node| {
        if let Node::Expr(Expr::Value(value)) = node
            && let Value::Placeholder(name) = &value.value
        {
            highest = highest.max(name.trim_start_matches('$').parse().unwrap_or(usize::MAX));
        }
    });
    highest
}

/// Names in WITH, anywhere in a query.
fn ctes_of(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut note = |query: &Query| {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        names.extend(ctes.map(|cte| folded(&cte.alias.name)));
    };
    note(query);
    query.each(|node| {
        if let Node::Query(query) = node {
            note(query);
        }
    });
    names
}

/// Gives the relations of a body their schema, so that a WITH around a call cannot put others in their places.
fn name_relations(query: &mut Query, arguments: &[FunctionArgument]) -> Result<()> {
    let mut own = ctes_of(query);
    for argument in arguments.iter().filter(|argument| argument.data_type.is_none()) {
        if !own.insert(argument.name.clone()) {
            return Err(Error::new(
                Kind::InvalidFunction,
                format!("\"{}\" is an argument and a name in WITH", argument.name),
            ));
        }
    }
    let is_bare = |ident: &Ident| {
        let name = folded(ident);
        !own.contains(&name) && !name.starts_with("pg_")
    };
    query.change_all(|node| {
        let NodeMut::Factor(TableFactor::Table { name, args, .. }) = node else { return };
        let schema = || Ident::with_quote('"', DEFAULT_SCHEMA);
        match args {
            None => {
                if let [part] = name.0.as_slice()
                    && let Some(ident) = part.as_ident()
                    && is_bare(ident)
                {
                    *name = ObjectName::from(vec![schema(), ident.clone()]);
                }
            }
            Some(args) => {
                if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) =
                    args.args.first_mut()
                    && let Expr::Identifier(ident) = expr
                    && is_bare(ident)
                    && place_in(arguments, &folded(ident)).is_none()
                {
                    *expr = Expr::CompoundIdentifier(vec![schema(), ident.clone()]);
                }
            }
        }
    });
    Ok(())
}

fn place_in(arguments: &[FunctionArgument], name: &str) -> Option<usize> {
    arguments.iter().position(|argument| argument.name == name)
}

/// A relation that a body names and nobody knows is a mistake of the one who writes it.
fn check_relations(name: &Name, body: &Query, state: &Generation) -> Result<()> {
    let mut missing = None;
    body.each(|node| {
        let Node::Factor(TableFactor::Table { name, args: None, .. }) = node else { return };
        if let [_, _] = name.0.as_slice()
            && let Ok(relation) = name_of(name)
            && relation.schema == DEFAULT_SCHEMA
            && !state.relations.contains_key(&relation)
        {
            missing.get_or_insert(relation);
        }
    });
    match missing {
        Some(relation) => Err(in_body(
            name,
            Error::new(Kind::UndefinedTable, format!("relation \"{relation}\" does not exist")),
        )),
        None => Ok(()),
    }
}

/// The statement of a function, read.
#[derive(Debug, Clone, PartialEq)]
pub enum FunctionStatement {
    /// CREATE FUNCTION.
    Create(Box<ast::CreateFunction>),
    /// DROP FUNCTION.
    Drop(ast::DropFunction),
}
