//! CREATE, REFRESH and DROP IDENTITY GRAPH.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::tokenizer::Token;
use serde::{Deserialize, Serialize};

use crate::dialect::tokenize;
use crate::error::{Error, Kind, Place, Result};
use crate::store::Name;

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
    /// REFRESH IDENTITY GRAPH.
    Refresh(String),
    /// DROP IDENTITY GRAPH.
    Drop {
        /// Name.
        name: String,
        /// Whether a missing graph is fine.
        if_exists: bool,
    },
}

/// Where a graph's identifiers come from, and its rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Columns of source, record, type and value.
    pub columns: [String; 4],
    /// Rules by type of identifier.
    pub rules: BTreeMap<String, Rule>,
}

/// How one type of identifier links.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// Rank of the type; 1 is strongest. Without constraints it does not change the result.
    pub priority: Option<u32>,
    /// A value on more records than this links nobody.
    pub max_records: Option<u32>,
}

impl Definition {
    /// The table as a relation's name.
    pub fn relation(&self) -> Name {
        Name::new(self.schema.clone(), self.table.clone())
    }
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
        // Every refresh of this version reads everything.
        reader.eat("FULL");
        GraphStatement::Refresh(name)
    } else if reader.eat("DROP") {
        reader.expect("IDENTITY")?;
        reader.expect("GRAPH")?;
        let if_exists = reader.eat("IF") && reader.expect("EXISTS").is_ok();
        GraphStatement::Drop { name: reader.name()?, if_exists }
    } else {
        return Err(Error::not_supported("ALTER IDENTITY GRAPH is not supported")
            .hint("DROP the graph and CREATE it with the new rules; its ids do not change"));
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
    let columns = columns(reader)?;
    let mut rules = BTreeMap::new();
    if reader.eat("WITH") {
        reader.expect("(")?;
        loop {
            let id_type = reader.name()?;
            if !reader.eat("(") {
                return Err(Error::not_supported(format!("option {id_type} is not supported"))
                    .detail("of this version: a list of types, each with priority and max_records")
                    .hint("WITH (phone (priority 3, max_records 10), device (max_records 5))"));
            }
            let rule = rule(reader, &id_type)?;
            if rules.insert(id_type.clone(), rule).is_some() {
                return Err(Error::new(
                    Kind::DuplicateObject,
                    format!("type {id_type} has rules twice"),
                ));
            }
            if !reader.eat(",") {
                break;
            }
        }
        reader.expect(")")?;
    }
    Ok(GraphStatement::Create {
        name,
        if_not_exists,
        definition: Definition { schema, table, columns, rules },
    })
}

fn columns(reader: &mut Reader) -> Result<[String; 4]> {
    const USUAL: [&str; 4] = ["source", "record_id", "id_type", "id_value"];
    if !reader.eat("(") {
        return Ok(USUAL.map(str::to_owned));
    }
    let mut columns = vec![reader.name()?];
    while reader.eat(",") {
        columns.push(reader.name()?);
    }
    reader.expect(")")?;
    // A fifth column, when the value was seen, is for recycled numbers; it changes nothing yet.
    columns.truncate(5);
    if columns.len() == 5 {
        columns.pop();
    }
    columns.try_into().map_err(|given: Vec<String>| {
        Error::new(
            Kind::Syntax,
            format!(
                "{} columns are named; four are needed: source, record, type, value",
                given.len()
            ),
        )
    })
}

fn rule(reader: &mut Reader, id_type: &str) -> Result<Rule> {
    let mut rule = Rule::default();
    loop {
        let option = reader.name()?;
        match option.as_str() {
            "priority" => rule.priority = Some(reader.number()?),
            "max_records" => rule.max_records = Some(reader.number()?),
            other => {
                return Err(Error::not_supported(format!(
                    "{id_type}: option {other} is not supported"
                ))
                .detail("of this version: priority, max_records"));
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

    #[test]
    fn the_long_form_is_read() {
        let sql = "CREATE IDENTITY GRAPH Customer FROM crm.ids (source, record_id, id_type, id_value, seen_at) \
                   WITH (phone (priority 3, max_records 10), email (priority 4))";
        let GraphStatement::Create { name, definition, .. } = parse_statement(sql).unwrap() else {
            panic!("a create")
        };
        assert_eq!(name, "customer");
        assert_eq!(definition.relation(), Name::new("crm", "ids"));
        assert_eq!(definition.rules["phone"], Rule { priority: Some(3), max_records: Some(10) });
    }

    #[test]
    fn mistakes_are_placed_and_named() {
        let error = parse_statement("CREATE IDENTITY GRAPH c FORM ids").unwrap_err();
        assert_eq!((error.sqlstate(), error.place().unwrap().column), ("42601", 25));
        let error =
            parse_statement("CREATE IDENTITY GRAPH c FROM ids WITH (phone (unique))").unwrap_err();
        assert_eq!(error.sqlstate(), "0A000");
    }
}
