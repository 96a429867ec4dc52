//! The SQL dialect: PostgreSQL's, as sqlparser knows it, without its exponential corner.

mod two_brackets;

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{Expr, Query, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Kind, Result};

/// Deepest nesting of a statement; one more is 54001.
pub const DEPTH_MAX: usize = 200;

/// Most operators in a row.
const OPERATORS_MAX: usize = 5_000;

/// Most additions and their kin in a row: each asks for the types of all before it.
const ARITHMETIC_MAX: usize = 1_000;

/// Most queries set together by UNION and its kin.
const QUERIES_MAX: usize = 500;

/// PostgreSQL's dialect, except that an argument's name is a plain word.
///
/// sqlparser 0.62 parses each positional argument twice where names may be expressions, so a call nested n deep costs 2^n
/// steps and one line of SQL stops a server. Nobody needs expressions as names.
#[derive(Debug, Default)]
pub struct PgDialect {
    inner: PostgreSqlDialect,
}

macro_rules! delegate {
    ($($method:ident),* $(,)?) => {
        $(fn $method(&self) -> bool { self.inner.$method() })*
    };
}

impl Dialect for PgDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        true
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.inner.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.inner.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.inner.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.inner.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        self.inner.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        self.inner.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<std::result::Result<u8, ParserError>> {
        self.inner.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        self.inner.prec_value(precedence)
    }

    delegate!(
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_alter_column_type_using,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
        supports_xml_expressions,
        supports_comment_optimizer_hint,
    );
}

/// The tokens of `sql`, with their places.
pub fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    let dialect = PgDialect::default();
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location();
    let mut tokens = tokens.map_err(|error| Error::from(ParserError::from(error)))?;
    two_brackets::respell(&mut tokens);
    Ok(tokens)
}

/// Parses one statement from its tokens.
pub fn parse_statement(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    refuse_long_chains(&tokens)?;
    let dialect = PgDialect::default();
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
    let statement = parser.parse_statement()?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return parser.expected("end of statement", rest).map_err(Error::from);
    }
    Ok(statement)
}

/// Parses a query that stands alone, as a view's text does.
pub fn parse_query(sql: &str) -> Result<Query> {
    match parse_statement(tokenize(sql)?)? {
        Statement::Query(query) => Ok(*query),
        other => Err(Error::new(
            Kind::Syntax,
            format!("a query is needed, not {}", first_word(&other.to_string())),
        )),
    }
}

/// Parses an expression that stands alone, as a step's predicate does.
pub fn parse_expression(sql: &str) -> Result<Expr> {
    let dialect = PgDialect::default();
    let tokens = tokenize(sql)?;
    refuse_long_chains(&tokens)?;
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
    let expression = parser.parse_expr()?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return parser.expected("end of the expression", rest).map_err(Error::from);
    }
    Ok(expression)
}

/// Refuses `a + b + c ...` and `SELECT ... UNION SELECT ...` of too many members: each is one level deeper to whoever plans it,
/// although the text nests nothing.
fn refuse_long_chains(tokens: &[TokenWithSpan]) -> Result<()> {
    /// Operators within one pair of brackets and between two commas, and queries set together.
    #[derive(Default, Clone, Copy)]
    struct Chain {
        operators: usize,
        arithmetic: usize,
        queries: usize,
    }
    let mut open = vec![Chain::default()];
    for token in tokens {
        let is_operator = match &token.token {
            Token::LParen | Token::LBracket => {
                open.push(Chain::default());
                continue;
            }
            Token::RParen | Token::RBracket => {
                if open.len() > 1 {
                    open.pop();
                }
                continue;
            }
            Token::Comma => {
                if let Some(chain) = open.last_mut() {
                    (chain.operators, chain.arithmetic) = (0, 0);
                }
                continue;
            }
            Token::Word(word) if word.keyword == Keyword::CASE => {
                open.push(Chain::default());
                continue;
            }
            Token::Word(word) if word.keyword == Keyword::END && open.len() > 1 => {
                open.pop();
                continue;
            }
            Token::Word(word)
                if matches!(word.keyword, Keyword::WHEN | Keyword::THEN | Keyword::ELSE) =>
            {
                if let Some(chain) = open.last_mut() {
                    (chain.operators, chain.arithmetic) = (0, 0);
                }
                continue;
            }
            Token::Word(word) => {
                if matches!(word.keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT)
                    && let Some(chain) = open.last_mut()
                {
                    *chain = Chain { queries: chain.queries + 1, ..Chain::default() };
                }
                matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::JOIN | Keyword::NOT)
            }
            Token::Whitespace(_)
            | Token::EOF
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::HexStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::Placeholder(_)
            | Token::Period
            | Token::SemiColon => false,
            // Every other symbol between two values joins them.
            _ => true,
        };
        let Some(chain) = open.last_mut() else { continue };
        chain.operators += usize::from(is_operator);
        let is_arithmetic = matches!(
            token.token,
            Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod
        );
        chain.arithmetic += usize::from(is_arithmetic);
        let what = match chain {
            c if c.queries > QUERIES_MAX => Some(format!("{QUERIES_MAX} queries set together")),
            c if c.operators > OPERATORS_MAX => Some(format!("{OPERATORS_MAX} operators in a row")),
            c if c.arithmetic > ARITHMETIC_MAX => {
                Some(format!("{ARITHMETIC_MAX} sums and products in a row"))
            }
            _ => None,
        };
        if let Some(what) = what {
            let what = format!("more than {what}");
            return Err(Error::new(
                Kind::TooComplex,
                format!("the statement is too complex: {what}"),
            )
            .hint("a list, col IN (...) or VALUES (...), may have any length"));
        }
    }
    Ok(())
}

fn first_word(sql: &str) -> &str {
    sql.split_whitespace().next().unwrap_or("")
}

/// Whether a function is that of `family`, or keeps its state, in any spelling: `window_funnel` and `windowFunnelState` are of
/// `windowfunnel`.
pub fn is_of_family(name: &str, family: &str) -> bool {
    let is = |suffix: &str| {
        let letters = name.bytes().filter(|letter| *letter != b'_');
        letters.map(|letter| letter.to_ascii_lowercase()).eq(family.bytes().chain(suffix.bytes()))
    };
    is("") || is("state")
}

/// A name as it must be written to be read back the same.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty nested calls took sqlparser 43 seconds; a thousand levels are refused, not fatal.
    #[test]
    fn nested_calls_parse_in_linear_time() {
        let nested = format!("SELECT {}x{}", "f(".repeat(40), ")".repeat(40));
        assert!(parse_statement(tokenize(&nested).unwrap()).is_ok());
        let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
        let error = parse_statement(tokenize(&deep).unwrap()).unwrap_err();
        assert_eq!(error.sqlstate(), "54001");
    }

    #[test]
    fn both_spellings_of_a_named_argument_parse() {
        for sql in [
            "SELECT * FROM f(t, a => 1, \"window\" => 2)",
            "SELECT * FROM f((SELECT 1), a := ARRAY['x'])",
        ] {
            assert!(parse_statement(tokenize(sql).unwrap()).is_ok(), "{sql}");
        }
    }
}
