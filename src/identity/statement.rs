//! CREATE, ALTER, REFRESH and DROP IDENTITY GRAPH.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::rules::{Definition, Rule, WideId};
use crate::dialect::tokenize;
use crate::error::{Error, Kind, Place, Result};

/// A statement about a graph.
#[derive(Debug, Clone, PartialEq)]
pub enum GraphStatement {
    /// CREATE IDENTITY GRAPH.
    Create {
        /// Name; its tables live in the schema of that name.
        name: String,
        /// Whether an existing graph is fine.
        if_not_exists: bool,
        /// Source and rules.
        definition: Definition,
    },
    /// ALTER IDENTITY GRAPH.
    Alter {
        /// Name.
        name: String,
        /// What is set.
        change: RuleChange,
    },
    /// REFRESH IDENTITY GRAPH.
    Refresh {
        /// Name of the graph.
        name: String,
        /// Whether it is computed anew although nothing has changed.
        full: bool,
    },
    /// DROP IDENTITY GRAPH.
    Drop {
        /// Name.
        name: String,
        /// Whether a missing graph is fine.
        if_exists: bool,
    },
}

/// Rules as a statement gives them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleChange {
    /// Rules of types; options that are not named stay.
    pub types: Vec<(String, Rule)>,
    /// Types that are taken out.
    pub dropped: Vec<String>,
    /// Most records of one customer; `Some(None)` takes the limit away.
    pub max_cluster_records: Option<Option<u32>>,
    /// Column by which identifiers are kept apart; `Some(None)` for none.
    pub link_scope: Option<Option<String>>,
}

/// Reads a statement that begins with CREATE, REFRESH, ALTER or DROP IDENTITY.
pub fn parse_statement(sql: &str) -> Result<GraphStatement> {
    let mut reader = Reader { tokens: Vec::new(), at: 0 };
    for token in tokenize(sql)? {
        if !matches!(token.token, Token::Whitespace(_) | Token::EOF) {
            let place = Place { line: token.span.start.line, column: token.span.start.column };
            reader.tokens.push((token.token, place));
        }
    }
    let statement = if reader.eat("CREATE") {
        create(&mut reader)?
    } else if reader.eat("REFRESH") {
        reader.expect("IDENTITY")?;
        reader.expect("GRAPH")?;
        let name = reader.name()?;
        GraphStatement::Refresh { name, full: reader.eat("FULL") }
    } else if reader.eat("DROP") {
        reader.expect("IDENTITY")?;
        reader.expect("GRAPH")?;
        let if_exists = reader.eat("IF") && reader.expect("EXISTS").is_ok();
        GraphStatement::Drop { name: reader.name()?, if_exists }
    } else {
        reader.expect("ALTER")?;
        reader.expect("IDENTITY")?;
        reader.expect("GRAPH")?;
        let name = reader.name()?;
        GraphStatement::Alter { name, change: alter(&mut reader)? }
    };
    match reader.peek() {
        None => Ok(statement),
        Some(_) => Err(reader.unexpected("the end of the statement")),
    }
}

fn create(reader: &mut Reader) -> Result<GraphStatement> {
    reader.expect("IDENTITY")?;
    reader.expect("GRAPH")?;
    let if_not_exists = reader.eat("IF");
    if if_not_exists {
        reader.expect("NOT")?;
        reader.expect("EXISTS")?;
    }
    let name = reader.name()?;
    reader.expect("FROM")?;
    let mut table = reader.name()?;
    let mut schema = "public".to_owned();
    if reader.eat(".") {
        schema = std::mem::replace(&mut table, reader.name()?);
    }
    let mut columns = columns(reader)?;
    let mut ids = Vec::new();
    if reader.eat("IDS") {
        ids = wide_ids(reader)?;
        if columns.is_empty() {
            columns = ["source", "record_id"].map(str::to_owned).to_vec();
        }
    } else if columns.is_empty() {
        columns = ["source", "record_id", "id_type", "id_value"].map(str::to_owned).to_vec();
    }
    let needed = if ids.is_empty() { 4 } else { 2 };
    if columns.len() != needed && columns.len() != needed + 1 {
        let wanted = match ids.is_empty() {
            true => {
                "four are needed, source, record, type and value, and a fifth may say when a value was seen"
            }
            false => {
                "two are needed, source and record, and a third may say when the values were seen"
            }
        };
        return Err(Error::new(
            Kind::Syntax,
            format!("{} columns are named; {wanted}", columns.len()),
        ));
    }
    let seen_at = (columns.len() > needed).then(|| columns.pop()).flatten();
    let mut definition =
        Definition { schema, table, columns, ids, seen_at, ..Definition::default() };
    if reader.eat("WITH") {
        reader.expect("(")?;
        let change = rules(reader)?;
        if let Some(twice) = change
            .types
            .iter()
            .enumerate()
            .find(|(i, (t, _))| change.types[..*i].iter().any(|(before, _)| before == t))
        {
            let id_type = &twice.1.0;
            return Err(Error::new(
                Kind::DuplicateObject,
                format!("type {id_type} has rules twice"),
            ));
        }
        definition.apply(change);
    }
    definition.check()?;
    Ok(GraphStatement::Create { name, if_not_exists, definition })
}

/// `SET (type (options), ...)`, `RESET (type, ...)`.
fn alter(reader: &mut Reader) -> Result<RuleChange> {
    if reader.eat("SET") {
        reader.expect("(")?;
        return rules(reader);
    }
    reader.expect("RESET")?;
    reader.expect("(")?;
    let mut change = RuleChange::default();
    loop {
        match reader.name()?.as_str() {
            "max_cluster_records" => change.max_cluster_records = Some(None),
            "link_scope" => change.link_scope = Some(None),
            id_type => change.dropped.push(id_type.to_owned()),
        }
        if !reader.eat(",") {
            break;
        }
    }
    reader.expect(")")?;
    Ok(change)
}

/// `phone (priority 3, max_records 10), max_cluster_records 200)`: with the closing bracket.
fn rules(reader: &mut Reader) -> Result<RuleChange> {
    let mut change = RuleChange::default();
    loop {
        let name = reader.name()?;
        match name.as_str() {
            "max_cluster_records" => change.max_cluster_records = Some(Some(reader.number()?)),
            "link_scope" => {
                let column = reader.name()?;
                change.link_scope = Some((column != "none").then_some(column));
            }
            _ => {
                let rule = match reader.eat("(") {
                    true => rule(reader, &name)?,
                    // A type may be named without options.
                    false => Rule::default(),
                };
                change.types.push((name, rule));
            }
        }
        if !reader.eat(",") {
            break;
        }
    }
    reader.expect(")")?;
    Ok(change)
}

/// `(source, record_id, ...)`; nothing when no columns are named.
fn columns(reader: &mut Reader) -> Result<Vec<String>> {
    let mut columns = Vec::new();
    if reader.eat("(") {
        columns.push(reader.name()?);
        while reader.eat(",") {
            columns.push(reader.name()?);
        }
        reader.expect(")")?;
    }
    Ok(columns)
}

/// `(phone, email, device_id AS device)`: columns of identifiers, each of a type.
fn wide_ids(reader: &mut Reader) -> Result<Vec<WideId>> {
    reader.expect("(")?;
    let mut ids = Vec::new();
    loop {
        let column = reader.name()?;
        let id_type = if reader.eat("AS") { reader.name()? } else { column.clone() };
        ids.push(WideId { column, id_type });
        if !reader.eat(",") {
            break;
        }
    }
    reader.expect(")")?;
    Ok(ids)
}

fn rule(reader: &mut Reader, id_type: &str) -> Result<Rule> {
    let mut rule = Rule::default();
    loop {
        let option = reader.name()?;
        match option.as_str() {
            "priority" => rule.priority = Some(reader.number()?),
            "unique" => rule.max_per_cluster = Some(1),
            "max_per_cluster" => rule.max_per_cluster = Some(reader.number()?),
            "max_records" => rule.max_records = Some(reader.number()?),
            "reuse_gap_days" => rule.reuse_gap_days = Some(reader.number()?),
            other => {
                return Err(Error::new(
                    Kind::Syntax,
                    format!("{id_type}: option {other} is not known"),
                )
                .detail(
                    "known are priority, unique, max_per_cluster, max_records, reuse_gap_days",
                ));
            }
        }
        if !reader.eat(",") {
            break;
        }
    }
    reader.expect(")")?;
    Ok(rule)
}

struct Reader {
    tokens: Vec<(Token, Place)>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let is_it = self.peek().is_some_and(|token| match token {
            Token::Word(word) => {
                word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted)
            }
            other => other.to_string() == wanted,
        });
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        if self.eat(wanted) { Ok(()) } else { Err(self.unexpected(wanted)) }
    }

    fn name(&mut self) -> Result<String> {
        let name = match self.peek() {
            Some(Token::Word(word)) if word.quote_style.is_some() => word.value.clone(),
            Some(Token::Word(word)) => word.value.to_lowercase(),
            _ => return Err(self.unexpected("a name")),
        };
        self.at += 1;
        Ok(name)
    }

    fn number(&mut self) -> Result<u32> {
        let number = match self.peek() {
            Some(Token::Number(digits, _)) => digits.parse().ok().filter(|n| *n > 0),
            _ => None,
        };
        match number {
            Some(number) => {
                self.at += 1;
                Ok(number)
            }
            None => Err(self.unexpected("a whole number above 0")),
        }
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let found = self.peek().map_or("the end".to_owned(), ToString::to_string);
        let place = self.tokens.get(self.at).or(self.tokens.last()).map(|(_, place)| *place);
        Error::new(Kind::Syntax, format!("syntax error: {wanted} expected, found {found}"))
            .at(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Name;

    fn definition(sql: &str) -> Definition {
        match parse_statement(sql).unwrap() {
            GraphStatement::Create { definition, .. } => definition,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_long_form_is_read() {
        let long = definition(
            "CREATE IDENTITY GRAPH Customer FROM crm.ids (source, record_id, id_type, id_value, seen_at) \
             WITH (idcard (priority 1, unique), phone (priority 3, max_records 10, reuse_gap_days 180), email, \
             max_cluster_records 200, link_scope brand)",
        );
        assert_eq!(long.relation(), Name::new("crm", "ids"));
        assert_eq!(long.seen_at.as_deref(), Some("seen_at"));
        assert_eq!(
            (long.max_cluster_records, long.link_scope.as_deref()),
            (Some(200), Some("brand"))
        );
        let phone = Rule {
            priority: Some(3),
            max_records: Some(10),
            reuse_gap_days: Some(180),
            max_per_cluster: None,
        };
        assert_eq!(long.rules["phone"], phone);
        assert_eq!(long.rules["idcard"].max_per_cluster, Some(1));
    }

    #[test]
    fn the_wide_form_is_read() {
        let wide = definition(
            "CREATE IDENTITY GRAPH c FROM customers IDS (phone, device_id AS device) WITH (phone, device)",
        );
        assert_eq!(wide.columns, ["source", "record_id"]);
        let device = WideId { column: "device_id".to_owned(), id_type: "device".to_owned() };
        assert_eq!(wide.ids[1], device);
        let timed = definition("CREATE IDENTITY GRAPH c FROM t (s, r, at) IDS (phone)");
        assert_eq!((timed.columns.len(), timed.seen_at.as_deref()), (2, Some("at")));
    }

    #[test]
    fn rules_are_altered() {
        let altered = |sql: &str| match parse_statement(sql).unwrap() {
            GraphStatement::Alter { change, .. } => change,
            other => panic!("{other:?}"),
        };
        let mut graph = definition(
            "CREATE IDENTITY GRAPH c FROM ids WITH (phone (priority 2), email, link_scope x)",
        );
        graph.apply(altered(
            "ALTER IDENTITY GRAPH c SET (phone (max_records 3), device, max_cluster_records 9)",
        ));
        assert_eq!(
            (graph.rules["phone"].priority, graph.rules["phone"].max_records),
            (Some(2), Some(3))
        );
        assert_eq!(graph.rules.len(), 3);
        graph.apply(altered(
            "ALTER IDENTITY GRAPH c RESET (email, max_cluster_records, link_scope)",
        ));
        assert!(!graph.rules.contains_key("email") && graph.link_scope.is_none());
        assert_eq!(graph.max_cluster_records, None);
    }

    #[test]
    fn mistakes_are_placed_and_named() {
        let error = parse_statement("CREATE IDENTITY GRAPH c FORM ids").unwrap_err();
        assert_eq!((error.sqlstate(), error.place().unwrap().column), ("42601", 25));
        for (sql, code) in [
            ("CREATE IDENTITY GRAPH c FROM ids WITH (phone (uniqe))", "42601"),
            ("CREATE IDENTITY GRAPH c FROM ids (a, b, c)", "42601"),
            ("CREATE IDENTITY GRAPH c FROM ids WITH (phone, phone)", "42710"),
            ("CREATE IDENTITY GRAPH c FROM t IDS (a AS phone) WITH (email)", "22023"),
            ("ALTER IDENTITY GRAPH c ADD (phone)", "42601"),
        ] {
            assert_eq!(parse_statement(sql).unwrap_err().sqlstate(), code, "{sql}");
        }
    }
}
