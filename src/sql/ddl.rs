//! CREATE and ALTER TABLE, with what PostgreSQL's grammar has not: PERSONAL, CLUSTER BY, SET IDENTITY.

use datafusion::sql::sqlparser::ast::{self, ColumnOption};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::statement::{Statement, Words, syntax};
use crate::dialect::parse_statement;
use crate::error::{Error, Kind, Result};
use crate::store::Name;

/// CREATE TABLE, and which columns it marks.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    /// The statement without the marks.
    pub table: ast::CreateTable,
    /// Columns marked PERSONAL.
    pub personal: Vec<String>,
    /// `CLUSTER BY (columns) [BUCKETS n]`.
    pub cluster_by: Option<ClusterBy>,
}

/// How the rows of a table are to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterBy {
    /// Columns, in their order.
    pub columns: Vec<String>,
    /// Number of buckets, when it is given.
    pub buckets: Option<u32>,
}

/// Takes the PERSONAL marks out of a CREATE TABLE and reads the rest.
pub(super) fn parse_create_table(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let (tokens, cluster_by) = without_clustering(tokens)?;
    let (tokens, personal) = without_marks(tokens);
    let ast::Statement::CreateTable(table) = parse_statement(tokens)? else {
        return Err(Error::new(Kind::Syntax, "syntax error in CREATE TABLE"));
    };
    if table.external || table.location.is_some() {
        return Err(no_external_tables());
    }
    if table.temporary || table.like.is_some() || table.clone.is_some() {
        return Err(Error::not_supported(
            "temporary tables and CREATE TABLE ... LIKE are not supported",
        ));
    }
    for column in &table.columns {
        for option in &column.options {
            if !matches!(option.option, ColumnOption::Null | ColumnOption::Comment(_)) {
                return Err(Error::not_supported(format!("column {}: {} is not supported", column.name, option.option))
                    .detail("columns have a name, a type and PERSONAL; constraints and defaults are not kept")
                    .hint("leave it out; sql/checks is the place for rules about data"));
            }
        }
    }
    if let Some(constraint) = table.constraints.first() {
        return Err(Error::not_supported(format!(
            "{constraint} is not supported: tables have no constraints"
        )));
    }
    let is_query = table.query.is_some();
    let create = Box::new(CreateTable { table, personal, cluster_by });
    Ok(if is_query { Statement::CreateTableAs(create) } else { Statement::CreateTable(create) })
}

/// ALTER TABLE ... ADD COLUMN.
#[derive(Debug, Clone, PartialEq)]
pub struct AddColumn {
    /// The table.
    pub table: ast::ObjectName,
    /// The column.
    pub column: ast::ColumnDef,
    /// Whether nothing happens when it is there.
    pub if_not_exists: bool,
    /// Whether it is marked PERSONAL.
    pub is_personal: bool,
}

/// ALTER TABLE ... SET IDENTITY.
#[derive(Debug, Clone, PartialEq)]
pub struct SetIdentity {
    /// The table.
    pub table: Name,
    /// The graph whose customers its rows are kept by; `None` for the order that CREATE TABLE gave.
    pub graph: Option<String>,
}

/// Reads `ALTER TABLE t SET IDENTITY graph`, or `NONE`; `None` for any other ALTER TABLE.
pub(super) fn parse_set_identity(words: &Words) -> Result<Option<SetIdentity>> {
    const FORM: &str = "ALTER TABLE events SET IDENTITY graph, or SET IDENTITY NONE";
    let Ok((table, at)) = words.name_at(2) else { return Ok(None) };
    if words.peek_upper(at) != "SET" || words.peek_upper(at + 1) != "IDENTITY" {
        return Ok(None);
    }
    match words.token(at + 2) {
        Some(Token::Word(_)) if words.len() == at + 3 => {}
        _ => return Err(syntax(words, at + 2, FORM)),
    }
    let is_none = words.peek_upper(at + 2) == "NONE";
    let graph = (!is_none).then(|| words.peek_text(at + 2));
    Ok(Some(SetIdentity { table, graph }))
}

/// Reads ALTER TABLE: a column more.
pub(super) fn parse_alter_table(mut tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let is_meant = |t: &TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
    let last = tokens.iter().rposition(is_meant);
    let is_personal = last.is_some_and(|at| {
        matches!(&tokens[at].token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("personal"))
    });
    if let (true, Some(at)) = (is_personal, last) {
        tokens.remove(at);
    }
    let refused = || {
        Error::not_supported("ALTER TABLE can add a column and set the identity graph of a table")
            .hint("ALTER TABLE t ADD COLUMN c type [PERSONAL]; ALTER TABLE t SET IDENTITY graph; CREATE TABLE AS makes another table")
    };
    let ast::Statement::AlterTable(alter) = parse_statement(tokens)? else { return Err(refused()) };
    let Ok([operation]) = <[_; 1]>::try_from(alter.operations) else { return Err(refused()) };
    match operation {
        ast::AlterTableOperation::AddColumn {
            if_not_exists,
            column_def,
            column_position: None,
            ..
        } if column_def.options.is_empty() => Ok(Statement::AddColumn(Box::new(AddColumn {
            table: alter.name,
            column: column_def,
            if_not_exists,
            is_personal,
        }))),
        _ => Err(refused()),
    }
}

/// A query reads the warehouse: no path of the server, no address of a network.
pub(super) fn no_external_tables() -> Error {
    Error::not_supported(
        "external tables are not supported: a query reads the warehouse and nothing else",
    )
    .hint("clientele load, or COPY ... FROM, brings a file in")
}

/// Takes `CLUSTER BY (columns) [BUCKETS n]` out, which may stand behind the column list or the name.
fn without_clustering(
    tokens: Vec<TokenWithSpan>,
) -> Result<(Vec<TokenWithSpan>, Option<ClusterBy>)> {
    let is_blank = |t: &TokenWithSpan| matches!(t.token, Token::Whitespace(_));
    let is_word = |t: &TokenWithSpan, word: &str| matches!(&t.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    let mut depth = 0;
    let mut start = None;
    for (i, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            // What stands behind AS is a query.
            _ if depth == 0 && is_word(token, "as") => break,
            _ if depth == 0 && is_word(token, "cluster") => {
                start = Some(i);
                break;
            }
            _ => {}
        }
    }
    let Some(start) = start else { return Ok((tokens, None)) };
    let place = tokens
        .get(start)
        .map(|t| crate::error::Place { line: t.span.start.line, column: t.span.start.column });
    let wrong =
        || Error::new(Kind::Syntax, "syntax error: CLUSTER BY (column, ...) [BUCKETS n]").at(place);
    let mut rest = (start..tokens.len()).filter(|i| !is_blank(&tokens[*i])).skip(1).peekable();
    let by = rest.next().ok_or_else(wrong)?;
    let open = rest.next().ok_or_else(wrong)?;
    if !is_word(&tokens[by], "by") || tokens[open].token != Token::LParen {
        return Err(wrong());
    }
    let mut columns = Vec::new();
    let mut end = loop {
        match &tokens[rest.next().ok_or_else(wrong)?].token {
            Token::Word(word) if word.quote_style.is_some() => columns.push(word.value.clone()),
            Token::Word(word) => columns.push(word.value.to_lowercase()),
            _ => return Err(wrong()),
        }
        let next = rest.next().ok_or_else(wrong)?;
        match tokens[next].token {
            Token::Comma => {}
            Token::RParen => break next,
            _ => return Err(wrong()),
        }
    };
    let mut buckets = None;
    if rest.peek().is_some_and(|i| is_word(&tokens[*i], "buckets")) {
        rest.next();
        end = rest.next().ok_or_else(wrong)?;
        let Token::Number(digits, _) = &tokens[end].token else { return Err(wrong()) };
        buckets = Some(digits.parse().map_err(|_| wrong())?);
    }
    let mut kept = tokens;
    kept.drain(start..=end);
    Ok((kept, Some(ClusterBy { columns, buckets })))
}

/// Within the column list, a bare word PERSONAL that is not a column's name is a mark of that column.
fn without_marks(tokens: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, Vec<String>) {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut personal = Vec::new();
    let mut depth = 0;
    let mut column: Option<String> = None;
    for token in tokens {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 1 => column = None,
            Token::Word(word) if depth == 1 => {
                let is_bare = word.quote_style.is_none();
                match &column {
                    None => {
                        column = Some(if is_bare {
                            word.value.to_lowercase()
                        } else {
                            word.value.clone()
                        })
                    }
                    Some(name) if is_bare && word.value.eq_ignore_ascii_case("personal") => {
                        personal.push(name.clone());
                        continue;
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
        kept.push(token);
    }
    (kept, personal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statement::parse;

    #[test]
    fn personal_is_a_mark_and_may_be_a_name() {
        let sql =
            "CREATE TABLE t (id BIGINT, phone TEXT PERSONAL, personal NUMERIC(10, 2) personal)";
        let Statement::CreateTable(create) = parse(sql).unwrap().remove(0).statement else {
            panic!("a table")
        };
        assert_eq!(create.personal, ["phone", "personal"]);
        assert_eq!(create.table.columns.len(), 3);
    }

    #[test]
    fn clustering_is_taken_out_wherever_it_stands() {
        let clustering = |sql: &str| match parse(sql).unwrap().remove(0).statement {
            Statement::CreateTable(create) | Statement::CreateTableAs(create) => {
                create.cluster_by.map(|c| (c.columns.join(","), c.buckets))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(
            clustering("CREATE TABLE t (a TEXT, \"B\" DATE) CLUSTER BY (A, \"B\") BUCKETS 8"),
            Some(("a,B".to_owned(), Some(8)))
        );
        assert_eq!(
            clustering("CREATE TABLE t CLUSTER BY (a) AS SELECT 1 AS a, 2 AS cluster"),
            Some(("a".to_owned(), None))
        );
        assert_eq!(clustering("CREATE TABLE t AS SELECT 1 AS cluster"), None);
        let error = parse("CREATE TABLE t (a INT) CLUSTER BY a").unwrap_err();
        assert_eq!(error.sqlstate(), "42601");
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        for sql in [
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "CREATE TABLE t (a INT DEFAULT 1)",
            "CREATE TABLE t (a INT, UNIQUE (a))",
        ] {
            assert_eq!(parse(sql).unwrap_err().sqlstate(), "0A000", "{sql}");
        }
        let error = parse("CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '/etc/passwd'")
            .unwrap_err();
        assert_eq!(error.sqlstate(), "0A000");
    }
}
