//! Text to statements.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::copy::{self, CopyStatement, CopyTarget};
use super::create_function::FunctionStatement;
use super::cron::{self, CronCall};
use super::ddl::{self, AddColumn, CreateTable, SetIdentity};
use super::delete::{self, Delete};
use super::erase::{self, Erase};
use super::execute::full_name;
use super::forget::{self, Forget};
use super::materialized::{self, ReportStatement};
use super::restore::{self, Restore};
use crate::dialect::{parse_statement, tokenize};
use crate::error::{Error, Kind, Place, Result};
use crate::identity::GraphStatement;
use crate::store::Name;

/// Longest text that is read at all.
const SQL_BYTES_MAX: usize = 16 << 20;

/// Most tokens of one statement: planning recurses over operators, a list of a hundred thousand is still fine.
const TOKENS_MAX: usize = 2_000_000;

/// A statement, read and not yet understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// SELECT, VALUES, WITH, EXPLAIN: the engine's own.
    Query(Box<ast::Statement>),
    /// INSERT.
    Insert(Box<ast::Insert>),
    /// CREATE TABLE with columns.
    CreateTable(Box<CreateTable>),
    /// DELETE.
    Delete(Box<Delete>),
    /// CREATE TABLE AS.
    CreateTableAs(Box<CreateTable>),
    /// CREATE VIEW.
    CreateView(Box<ast::CreateView>),
    /// CREATE FUNCTION, DROP FUNCTION.
    Function(FunctionStatement),
    /// CREATE SCHEMA; schemas come with their first relation, so there is nothing to store.
    CreateSchema(String),
    /// DROP TABLE, DROP VIEW.
    Drop(Box<ast::Statement>),
    /// COPY.
    Copy(Box<CopyStatement>),
    /// CREATE, REFRESH, DROP IDENTITY GRAPH.
    Graph(Box<GraphStatement>),
    /// ALTER TABLE ... ADD COLUMN.
    AddColumn(Box<AddColumn>),
    /// ALTER TABLE ... SET IDENTITY.
    SetIdentity(SetIdentity),
    /// CHECK TABLE.
    Check(Vec<Name>),
    /// CHECK QUALITY, of some tables or all.
    CheckQuality(Vec<Name>),
    /// COMPACT TABLE.
    Compact(Vec<Name>),
    /// ERASE RECORD.
    Erase(Erase),
    /// FORGET CUSTOMER.
    Forget(Forget),
    /// CHECK ERASED.
    CheckErased,
    /// VACUUM.
    Vacuum,
    /// RESTORE.
    Restore(Restore),
    /// Materialized views.
    Report(Box<ReportStatement>),
    /// `SELECT cron.schedule(...)` and its kin.
    Cron(Box<CronCall>),
    /// About the session.
    Session(SessionCommand),
}

impl Statement {
    /// The command of a statement that changes what others read; `None` for one that only reads or keeps house.
    pub fn writes(&self) -> Option<&'static str> {
        Some(match self {
            Self::Query(_)
            | Self::Check(_)
            | Self::Compact(_)
            | Self::Vacuum
            | Self::Session(_) => return None,
            Self::Copy(copy) => match copy.target {
                CopyTarget::Stdin | CopyTarget::FromPath(_) => "COPY FROM",
                CopyTarget::Stdout | CopyTarget::ToPath(_) => return None,
            },
            Self::Insert(_) => "INSERT",
            Self::Delete(_) => "DELETE",
            Self::CreateTable(_) => "CREATE TABLE",
            Self::CreateTableAs(_) => "CREATE TABLE AS",
            Self::CreateView(_) => "CREATE VIEW",
            Self::Function(FunctionStatement::Create(_)) => "CREATE FUNCTION",
            Self::Function(FunctionStatement::Drop(_)) => "DROP FUNCTION",
            Self::CreateSchema(_) => "CREATE SCHEMA",
            Self::Drop(_) => "DROP",
            Self::Graph(_) => "a statement about an identity graph",
            Self::AddColumn(_) | Self::SetIdentity(_) => "ALTER TABLE",
            Self::CheckQuality(_) => "CHECK QUALITY",
            Self::Erase(_) => "ERASE",
            Self::Forget(_) => "FORGET CUSTOMER",
            Self::CheckErased => "CHECK ERASED",
            Self::Restore(_) => "RESTORE",
            Self::Report(_) => "a statement about a materialized view",
            Self::Cron(_) => "a change of scheduled jobs",
        })
    }
}

/// Commands that change or show the session, not the data.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionCommand {
    /// SET name = value; `None` is DEFAULT.
    Set {
        /// Setting.
        name: String,
        /// Value.
        value: Option<String>,
        /// Whether it ends with its transaction block.
        is_local: bool,
    },
    /// SHOW name, or SHOW ALL.
    Show(String),
    /// RESET name, or RESET ALL.
    Reset(String),
    /// DISCARD ALL and its parts.
    Discard(String),
    /// BEGIN, START TRANSACTION.
    Begin {
        /// READ ONLY, READ WRITE, or what the session has as its default.
        reads_only: Option<bool>,
    },
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT name.
    Savepoint(String),
    /// RELEASE name.
    Release(String),
    /// ROLLBACK TO name.
    RollbackTo(String),
    /// DEALLOCATE name, or ALL.
    Deallocate(String),
    /// CLOSE name, or ALL.
    Close(String),
    /// LISTEN, UNLISTEN, NOTIFY: accepted, nothing is ever sent.
    Listen(&'static str),
    /// PREPARE name (types) AS statement.
    Prepare {
        /// Name.
        name: String,
        /// Types of its parameters, as far as they are declared.
        types: Vec<String>,
        /// Text of the statement.
        statement: String,
    },
    /// DECLARE name CURSOR FOR query.
    Declare {
        /// Name.
        name: String,
        /// Whether it outlives its transaction block.
        is_held: bool,
        /// Text of the query.
        query: String,
    },
    /// FETCH rows FROM name; `None` is all that are left.
    Fetch {
        /// Name of the cursor.
        name: String,
        /// Rows at most.
        rows: Option<usize>,
    },
    /// EXECUTE name (values).
    Execute {
        /// Name.
        name: String,
        /// Values, as written.
        values: Vec<String>,
    },
}

/// One statement and its own text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it is.
    pub statement: Statement,
    /// Its text, blanks before it included, so that places count from the start of what was sent.
    pub text: String,
}

/// Reads every statement of `sql`. An error anywhere means that none of them is run, as in PostgreSQL.
pub fn parse(sql: &str) -> Result<Vec<Parsed>> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(Error::new(
            Kind::LimitExceeded,
            format!("the statement has {} bytes, {SQL_BYTES_MAX} are the most", sql.len()),
        ));
    }
    let tokens = tokenize(sql)?;
    if tokens.len() > TOKENS_MAX {
        return Err(Error::new(
            Kind::TooComplex,
            format!("the statement has {} words, {TOKENS_MAX} are the most", tokens.len()),
        ));
    }
    let mut statements = Vec::new();
    for piece in tokens.split(|t| t.token == Token::SemiColon) {
        let meaningful: Vec<TokenWithSpan> = piece.to_vec();
        if meaningful.iter().all(|t| matches!(t.token, Token::Whitespace(_) | Token::EOF)) {
            continue;
        }
        let text = text_of(sql, &meaningful);
        statements.push(Parsed { statement: parse_one(meaningful)?, text });
    }
    Ok(statements)
}

fn parse_one(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let mut words = Words::new(&tokens);
    match words.peek_upper(0).as_str() {
        "COPY" => return Ok(Statement::Copy(Box::new(copy::parse(&words)?))),
        "CREATE" | "REFRESH" | "DROP" | "ALTER" if words.peek_upper(1) == "IDENTITY" => {
            return Ok(Statement::Graph(Box::new(crate::identity::parse_statement(
                &meaningful_text(&tokens),
            )?)));
        }
        "CREATE" if is_kept(&words) => {
            return materialized::parse_create(&tokens).map(report);
        }
        "ALTER" | "DROP" | "REFRESH" if is_kept(&words) => {
            let read = match words.peek_upper(0).as_str() {
                "ALTER" => materialized::parse_alter,
                "DROP" => materialized::parse_drop,
                _ => materialized::parse_refresh,
            };
            return read(&words).map(report);
        }
        "CANCEL" if words.peek_upper(1) == "REFRESH" => {
            return materialized::parse_cancel(&words).map(report);
        }
        "CHECK" if words.peek_upper(1) == "TABLE" => {
            return tables_after(&words).map(Statement::Check);
        }
        "CHECK" if words.peek_upper(1) == "QUALITY" => {
            let tables = if words.len() == 2 { vec![] } else { tables_after(&words)? };
            return Ok(Statement::CheckQuality(tables));
        }
        "CHECK" if words.peek_upper(1) == "ERASED" && words.len() == 2 => {
            return Ok(Statement::CheckErased);
        }
        "RESTORE" => return restore::parse(&words).map(Statement::Restore),
        "ERASE" => return erase::parse(&words).map(Statement::Erase),
        "FORGET" => return forget::read(&words).map(Statement::Forget),
        "VACUUM" if words.len() == 1 => return Ok(Statement::Vacuum),
        "VACUUM" => {
            return Err(syntax(
                &words,
                1,
                "VACUUM takes away what no version needs, of every table: it has no words",
            ));
        }
        "COMPACT" if words.peek_upper(1) == "TABLE" => {
            return tables_after(&words).map(Statement::Compact);
        }
        "TABLE" => {
            let (name, end) = words.name_at(1)?;
            if end < words.len() {
                return Err(syntax(&words, end, "TABLE name; SELECT * FROM name takes more words"));
            }
            let schema = crate::dialect::quoted(&name.schema);
            let table = crate::dialect::quoted(&name.table);
            let query = crate::dialect::parse_query(&format!("SELECT * FROM {schema}.{table}"))?;
            return Ok(Statement::Query(Box::new(ast::Statement::Query(Box::new(query)))));
        }
        "CREATE" if words.peek_upper(1) == "EXTERNAL" => return Err(ddl::no_external_tables()),
        "CREATE" if is_create_table(&words) => return ddl::parse_create_table(tokens),
        "ALTER" if words.peek_upper(1) == "TABLE" => {
            return match ddl::parse_set_identity(&words)? {
                Some(set) => Ok(Statement::SetIdentity(set)),
                None => ddl::parse_alter_table(tokens),
            };
        }
        _ => {}
    }
    if let Some(command) = session_command(&mut words)? {
        return Ok(Statement::Session(command));
    }
    match parse_statement(tokens)? {
        statement @ (ast::Statement::Query(_) | ast::Statement::Explain { .. }) => {
            match cron::read(&statement)? {
                Some(call) => Ok(Statement::Cron(Box::new(call))),
                None => Ok(Statement::Query(Box::new(statement))),
            }
        }
        ast::Statement::Insert(insert) => Ok(Statement::Insert(Box::new(insert))),
        ast::Statement::Delete(rows) => Ok(Statement::Delete(Box::new(delete::read(&rows)?))),
        ast::Statement::CreateFunction(create) => {
            Ok(Statement::Function(FunctionStatement::Create(Box::new(create))))
        }
        ast::Statement::DropFunction(drop) => {
            Ok(Statement::Function(FunctionStatement::Drop(drop)))
        }
        ast::Statement::CreateView(view) => Ok(Statement::CreateView(Box::new(view))),
        ast::Statement::CreateSchema { schema_name, .. } => {
            Ok(Statement::CreateSchema(schema_name.to_string()))
        }
        statement @ ast::Statement::Drop { .. } => Ok(Statement::Drop(Box::new(statement))),
        other => Err(refused(&other)),
    }
}

/// Whether a statement is about a materialized view or an audience.
fn is_kept(words: &Words) -> bool {
    materialized::is_about_audience(words)
        || words.peek_upper(1) == "MATERIALIZED" && words.peek_upper(2) == "VIEW"
}

fn report(statement: ReportStatement) -> Statement {
    Statement::Report(Box::new(statement))
}

/// The names in `CHECK TABLE a, b.c`.
fn tables_after(words: &Words) -> Result<Vec<Name>> {
    let mut tables = Vec::new();
    let mut at = 2;
    loop {
        let (name, next) = words.name_at(at)?;
        tables.push(name);
        match words.token(next) {
            None => return Ok(tables),
            Some(Token::Comma) => at = next + 1,
            Some(_) => return Err(syntax(words, next, "names of tables end the statement")),
        }
    }
}

fn is_create_table(words: &Words) -> bool {
    let second = words.peek_upper(1);
    second == "TABLE" || second == "UNLOGGED" && words.peek_upper(2) == "TABLE"
}

fn refused(statement: &ast::Statement) -> Error {
    let text = statement.to_string();
    let (command, hint) = match statement {
        ast::Statement::Update { .. } => (
            "UPDATE".to_owned(),
            "rows with a key are corrected by loading them again (clientele load --key, COPY ... KEY); DELETE and INSERT take others' place",
        ),
        ast::Statement::Truncate { .. } => {
            ("TRUNCATE".to_owned(), "DELETE FROM the table takes all rows")
        }
        _ => {
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            (words.join(" ").to_uppercase(), "docs/sql.md lists the statements of this version")
        }
    };
    Error::not_supported(format!("{command} is not supported")).hint(hint)
}

fn session_command(words: &mut Words) -> Result<Option<SessionCommand>> {
    let first = words.peek_upper(0);
    let command = match first.as_str() {
        "BEGIN" => SessionCommand::Begin { reads_only: reads_only(words) },
        "START" if words.peek_upper(1) == "TRANSACTION" => {
            SessionCommand::Begin { reads_only: reads_only(words) }
        }
        "COMMIT" | "END" | "ROLLBACK" | "ABORT" if is_chained(words) => {
            return Err(Error::not_supported(format!("{first} AND CHAIN is not supported"))
                .hint("end the block, and BEGIN the next one"));
        }
        "COMMIT" | "END" => SessionCommand::Commit,
        "ABORT" => SessionCommand::Rollback,
        "ROLLBACK" => match words.name_after("TO") {
            Some(name) => SessionCommand::RollbackTo(name),
            None => SessionCommand::Rollback,
        },
        "SAVEPOINT" => SessionCommand::Savepoint(words.peek_text(1)),
        "RELEASE" => SessionCommand::Release(words.last_text()),
        "DISCARD" => SessionCommand::Discard(words.peek_upper(1)),
        "RESET" if words.rest_text(1).eq_ignore_ascii_case("transaction_read_only") => {
            return Err(Error::new(
                Kind::InvalidParameter,
                "parameter \"transaction_read_only\" cannot be reset",
            ));
        }
        "RESET" => SessionCommand::Reset(words.rest_text(1)),
        "SHOW" => SessionCommand::Show(words.rest_text(1)),
        "DEALLOCATE" => SessionCommand::Deallocate(words.last_text()),
        "CLOSE" => SessionCommand::Close(words.last_text()),
        "LISTEN" => SessionCommand::Listen("LISTEN"),
        "UNLISTEN" => SessionCommand::Listen("UNLISTEN"),
        "NOTIFY" => SessionCommand::Listen("NOTIFY"),
        "SET" => return set_command(words).map(Some),
        "PREPARE" => return prepare_command(words).map(Some),
        "DECLARE" => return declare_command(words).map(Some),
        "FETCH" => return fetch_command(words).map(Some),
        "EXECUTE" => {
            SessionCommand::Execute { name: words.peek_text(1), values: words.arguments_after(2) }
        }
        _ => return Ok(None),
    };
    Ok(Some(command))
}

/// Whether a block is to be followed by another one.
fn is_chained(words: &Words) -> bool {
    (1..words.len()).any(|at| words.peek_upper(at) == "AND" && words.peek_upper(at + 1) == "CHAIN")
}

/// READ ONLY or READ WRITE among the modes of a transaction; the last one counts.
fn reads_only(words: &Words) -> Option<bool> {
    let mode = |at: usize| match words.peek_upper(at + 1).as_str() {
        "ONLY" => Some(true),
        "WRITE" => Some(false),
        _ => None,
    };
    (0..words.len()).rev().filter(|at| words.peek_upper(*at) == "READ").find_map(mode)
}

fn set_command(words: &mut Words) -> Result<SessionCommand> {
    let mut at = 1;
    let is_local = words.peek_upper(at) == "LOCAL";
    if is_local || words.peek_upper(at) == "SESSION" {
        at += 1;
    }
    if words.peek_upper(at) == "TRANSACTION" || words.peek_upper(at) == "CHARACTERISTICS" {
        let is_of_session = words.peek_upper(at) == "CHARACTERISTICS";
        let (name, value) = match reads_only(words) {
            Some(reads_only) => {
                let name = match is_of_session {
                    true => "default_transaction_read_only",
                    false => "transaction_read_only",
                };
                (name, Some(if reads_only { "on" } else { "off" }.to_owned()))
            }
            // Every statement reads one published state; the isolation asked for is given.
            None => ("transaction_isolation", None),
        };
        let is_local = is_local || name == "transaction_read_only";
        return Ok(SessionCommand::Set { name: name.to_owned(), value, is_local });
    }
    let (name, value_at) = if words.peek_upper(at) == "TIME" && words.peek_upper(at + 1) == "ZONE" {
        ("TimeZone".to_owned(), at + 2)
    } else {
        let mut name = words.peek_text(at);
        let mut next = at + 1;
        while words.peek_upper(next) == "." {
            name = format!("{name}.{}", words.peek_text(next + 1));
            next += 2;
        }
        let is_assignment = ["=", "TO"].contains(&words.peek_upper(next).as_str());
        let is_names = name.eq_ignore_ascii_case("names");
        if !is_assignment && !is_names {
            return Err(Error::new(
                Kind::Syntax,
                format!("syntax error: SET {name} needs = or TO and a value"),
            )
            .at(words.place(next)));
        }
        (name, if is_names { next } else { next + 1 })
    };
    let value = words.values_from(value_at);
    if value.is_empty() {
        return Err(Error::new(Kind::Syntax, format!("syntax error: SET {name} has no value"))
            .at(words.place(value_at)));
    }
    let value =
        (!(value.len() == 1 && words.peek_upper(value_at) == "DEFAULT")).then(|| value.join(", "));
    // It is of the transaction, whoever sets it.
    let is_local = is_local || name.eq_ignore_ascii_case("transaction_read_only");
    Ok(SessionCommand::Set { name, value, is_local })
}

fn prepare_command(words: &mut Words) -> Result<SessionCommand> {
    let name = words.peek_text(1);
    let types = if words.peek_upper(2) == "(" { words.arguments_after(2) } else { vec![] };
    match words.text_after("AS") {
        Some(statement) => Ok(SessionCommand::Prepare { name, types, statement }),
        None => Err(syntax(words, 2, "PREPARE name (types) AS statement")),
    }
}

fn declare_command(words: &mut Words) -> Result<SessionCommand> {
    const FORM: &str = "DECLARE name [NO SCROLL] CURSOR [WITH HOLD] FOR query";
    let name = words.peek_text(1);
    let Some(cursor) = words.position_of("CURSOR") else { return Err(syntax(words, 2, FORM)) };
    let Some(query) = words.text_after("FOR") else { return Err(syntax(words, cursor, FORM)) };
    for at in 2..cursor {
        match words.peek_upper(at).as_str() {
            "NO" | "INSENSITIVE" | "ASENSITIVE" => {}
            "SCROLL" if words.peek_upper(at - 1) == "NO" => {}
            "BINARY" | "SCROLL" => {
                return Err(Error::not_supported("a cursor gives its rows once, as text")
                    .hint("leave BINARY and SCROLL out"));
            }
            _ => return Err(syntax(words, at, FORM)),
        }
    }
    let is_held = words.peek_upper(cursor + 1) == "WITH" && words.peek_upper(cursor + 2) == "HOLD";
    Ok(SessionCommand::Declare { name, is_held, query })
}

fn fetch_command(words: &mut Words) -> Result<SessionCommand> {
    let mut at = 1;
    let mut rows = Some(1);
    if matches!(words.peek_upper(at).as_str(), "NEXT" | "FORWARD") {
        at += 1;
    }
    match (words.token(at), words.peek_upper(at).as_str()) {
        (Some(Token::Number(digits, _)), _) => {
            let number = digits.parse().ok().filter(|n| *n > 0);
            rows = Some(number.ok_or_else(only_forward)?);
            at += 1;
        }
        (_, "ALL") => {
            rows = None;
            at += 1;
        }
        (_, "PRIOR" | "BACKWARD" | "FIRST" | "LAST" | "ABSOLUTE" | "RELATIVE" | "-") => {
            return Err(only_forward());
        }
        _ => {}
    }
    if matches!(words.peek_upper(at).as_str(), "FROM" | "IN") {
        at += 1;
    }
    if words.len() != at + 1 {
        return Err(syntax(words, at, "FETCH [FORWARD] [n | ALL] FROM name"));
    }
    Ok(SessionCommand::Fetch { name: words.peek_text(at), rows })
}

fn only_forward() -> Error {
    Error::new(Kind::NotInState, "a cursor can only scan forward")
        .hint("FETCH FORWARD n FROM name, with n above 0")
}

pub(super) fn syntax(words: &Words, at: usize, form: &str) -> Error {
    Error::new(Kind::Syntax, format!("syntax error: {form}")).at(words.place(at))
}

/// The words of a statement, blanks left out.
pub(super) struct Words<'a> {
    tokens: Vec<&'a TokenWithSpan>,
}

impl<'a> Words<'a> {
    pub(super) fn new(tokens: &'a [TokenWithSpan]) -> Self {
        let tokens = tokens
            .iter()
            .filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF))
            .collect();
        Self { tokens }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn token(&self, at: usize) -> Option<&'a Token> {
        self.tokens.get(at).map(|t| &t.token)
    }

    /// Upper case of a bare word or a symbol; empty past the end and for what is quoted.
    pub(super) fn peek_upper(&self, at: usize) -> String {
        match self.token(at) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_uppercase(),
            Some(Token::Word(_) | Token::SingleQuotedString(_)) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// A word or text as a value: quotes taken off, bare words in lower case.
    pub(super) fn peek_text(&self, at: usize) -> String {
        match self.token(at) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_lowercase(),
            Some(Token::Word(word)) => word.value.clone(),
            Some(Token::SingleQuotedString(text)) => text.clone(),
            Some(Token::EscapedStringLiteral(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    pub(super) fn place(&self, at: usize) -> Option<Place> {
        let token = self.tokens.get(at).or_else(|| self.tokens.last())?;
        Some(Place { line: token.span.start.line, column: token.span.start.column })
    }

    pub(super) fn position_of(&self, word: &str) -> Option<usize> {
        (0..self.len()).find(|at| self.peek_upper(*at) == word)
    }

    /// A table's name, with or without its schema, and where the words behind it begin.
    pub(super) fn name_at(&self, at: usize) -> Result<(Name, usize)> {
        let is_word = |at: usize| matches!(self.token(at), Some(Token::Word(_)));
        if !is_word(at) {
            return Err(Error::new(Kind::Syntax, "syntax error: a table's name is needed")
                .at(self.place(at)));
        }
        let mut parts = vec![self.peek_text(at)];
        let mut next = at + 1;
        while self.token(next) == Some(&Token::Period) && is_word(next + 1) {
            parts.push(self.peek_text(next + 1));
            next += 2;
        }
        Ok((full_name(parts).map_err(|error| error.at(self.place(at)))?, next))
    }

    /// Where the bracket closes that opens at a word.
    pub(super) fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        for at in open..self.len() {
            match self.token(at) {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(at);
            }
        }
        None
    }

    /// The words from one up to another, with a blank between them.
    pub(super) fn spelled(&self, from: usize, to: usize) -> String {
        let words: Vec<String> = (from..to).filter_map(|at| self.token(at)).map(respelt).collect();
        words.join(" ")
    }

    /// The text from one word up to another as it was written; `tokens` are those that the words are of.
    pub(super) fn text_between(&self, tokens: &[TokenWithSpan], from: usize, to: usize) -> String {
        let place = |at: usize| {
            let word = self.tokens.get(at)?;
            tokens.iter().position(|token| std::ptr::eq(token, *word))
        };
        let Some(start) = place(from) else { return String::new() };
        let end = place(to).unwrap_or(tokens.len());
        let kept = tokens[start..end].iter().filter(|token| token.token != Token::EOF);
        kept.map(|token| respelt(&token.token)).collect::<String>().trim().to_owned()
    }

    fn last_text(&self) -> String {
        self.peek_text(self.len().saturating_sub(1))
    }

    fn rest_text(&self, from: usize) -> String {
        let rest: Vec<String> = (from..self.len()).map(|at| self.peek_text(at)).collect();
        rest.join(" ").replace(" . ", ".")
    }

    /// Comma-separated values, each as text; signs stay with their numbers.
    fn values_from(&self, from: usize) -> Vec<String> {
        let mut values = vec![String::new()];
        for at in from..self.len() {
            match self.token(at) {
                Some(Token::Comma) => values.push(String::new()),
                _ => {
                    if let Some(value) = values.last_mut() {
                        value.push_str(&self.peek_text(at));
                    }
                }
            }
        }
        values.retain(|v| !v.is_empty() || from < self.len());
        values
    }

    fn name_after(&self, word: &str) -> Option<String> {
        self.position_of(word)?;
        Some(self.last_text())
    }

    fn text_after(&self, word: &str) -> Option<String> {
        let at = self.position_of(word)?;
        let rest: Vec<String> =
            self.tokens.get(at + 1..)?.iter().map(|t| respelt(&t.token)).collect();
        (!rest.is_empty()).then(|| rest.join(" "))
    }

    fn arguments_after(&self, from: usize) -> Vec<String> {
        let mut values = Vec::new();
        let mut depth = 0;
        let mut value = String::new();
        for at in from..self.len() {
            match self.token(at) {
                Some(Token::LParen) => {
                    if depth > 0 {
                        value.push('(');
                    }
                    depth += 1;
                }
                Some(Token::RParen) => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                    value.push(')');
                }
                Some(Token::Comma) if depth == 1 => values.push(std::mem::take(&mut value)),
                Some(token) => {
                    value.push(' ');
                    value.push_str(&respelt(token));
                }
                None => {}
            }
        }
        if !value.trim().is_empty() {
            values.push(value);
        }
        values
    }
}

/// A token as it has to be written to be read again: what was between quotes has lost the doubled ones within.
fn respelt(token: &Token) -> String {
    match token {
        Token::SingleQuotedString(text) => crate::dialect::literal(text),
        Token::EscapedStringLiteral(text) => {
            format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
        }
        Token::Word(word) if word.quote_style == Some('"') => crate::dialect::quoted(&word.value),
        other => other.to_string(),
    }
}

/// The statement's own text, with everything before it as blanks so that places stay.
fn text_of(sql: &str, tokens: &[TokenWithSpan]) -> String {
    let offset = |line: u64, column: u64| -> usize {
        let mut left = line;
        let mut start = 0;
        for (i, c) in sql.char_indices() {
            if left <= 1 {
                break;
            }
            if c == '\n' {
                left -= 1;
                start = i + 1;
            }
        }
        let rest = &sql[start..];
        start + rest.char_indices().nth((column.max(1) - 1) as usize).map_or(rest.len(), |(i, _)| i)
    };
    let meaningful: Vec<&TokenWithSpan> =
        tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    let (Some(first), Some(last)) = (meaningful.first(), meaningful.last()) else {
        return String::new();
    };
    let start = offset(first.span.start.line, first.span.start.column);
    let end = offset(last.span.end.line, last.span.end.column);
    sql.get(start..end.max(start)).unwrap_or_default().to_owned()
}

fn meaningful_text(tokens: &[TokenWithSpan]) -> String {
    tokens.iter().map(|t| respelt(&t.token)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(sql: &str) -> Statement {
        parse(sql).unwrap().remove(0).statement
    }

    #[test]
    fn statements_are_cut_at_semicolons_outside_of_texts() {
        let parsed = parse("SELECT ';'; ; -- ;\n SELECT 2;").unwrap();
        assert_eq!(
            parsed.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(),
            ["SELECT ';'", "SELECT 2"]
        );
    }

    #[test]
    fn session_commands_in_their_spellings() {
        let set = |sql: &str| match one(sql) {
            Statement::Session(SessionCommand::Set { name, value, .. }) => (name, value),
            other => panic!("{other:?}"),
        };
        let named = |n: &str, v: &str| (n.to_owned(), Some(v.to_owned()));
        assert_eq!(set("SET as_of = '2011-12-09'"), named("as_of", "2011-12-09"));
        assert_eq!(set("set SESSION statement_timeout to 250"), named("statement_timeout", "250"));
        assert_eq!(set("SET TIME ZONE 'Asia/Shanghai'"), named("TimeZone", "Asia/Shanghai"));
        assert_eq!(set("SET datestyle TO ISO, MDY"), named("datestyle", "iso, mdy"));
        assert_eq!(set("SET TimeZone = DEFAULT"), ("timezone".to_owned(), None));
        assert_eq!(
            one("rollback to savepoint S1"),
            Statement::Session(SessionCommand::RollbackTo("s1".into()))
        );
        assert_eq!(one("DISCARD ALL"), Statement::Session(SessionCommand::Discard("ALL".into())));
        assert_eq!(
            one("SHOW transaction isolation level"),
            Statement::Session(SessionCommand::Show("transaction isolation level".into()))
        );
    }

    #[test]
    fn cursors_and_prepared_statements_are_read() {
        let read = |sql: &str| match one(sql) {
            Statement::Session(command) => command,
            other => panic!("{other:?}"),
        };
        let named = |is_held| SessionCommand::Declare {
            name: "c".into(),
            is_held,
            query: "SELECT 1".into(),
        };
        assert_eq!(read("DECLARE c NO SCROLL CURSOR FOR SELECT 1"), named(false));
        assert_eq!(read("DECLARE \"c\" CURSOR WITH HOLD FOR SELECT 1"), named(true));
        let fetch = |rows| SessionCommand::Fetch { name: "c".into(), rows };
        assert_eq!(read("FETCH FORWARD 100 FROM c"), fetch(Some(100)));
        assert_eq!(read("fetch all in c"), fetch(None));
        assert_eq!(read("FETCH c"), fetch(Some(1)));
        assert_eq!(parse("FETCH BACKWARD 1 FROM c").unwrap_err().sqlstate(), "55000");
        assert_eq!(
            read("PREPARE p (int, text) AS SELECT $1, $2"),
            SessionCommand::Prepare {
                name: "p".into(),
                types: vec![" int".into(), " text".into()],
                statement: "SELECT $1 , $2".into()
            }
        );
    }

    #[test]
    fn what_we_do_not_have_is_refused_by_name() {
        let error = parse("CREATE INDEX i ON t (a)").unwrap_err();
        assert_eq!((error.sqlstate(), error.message()), ("0A000", "CREATE INDEX is not supported"));
        let error = parse("SELEC 1").unwrap_err();
        assert_eq!(error.sqlstate(), "42601");
    }
}
