//! ClickHouse's calls with two pairs of brackets: `windowFunnel(3600, 'strict_order')(at, a, b)`.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

/// Funnels, whose first brackets hold a window and modes.
const FUNNELS: [&str; 3] = ["windowfunnel", "funnelpath", "funnelattempts"];

/// Functions whose first brackets hold what comes before the time in ours, too.
const SEQUENCES: [&str; 4] =
    ["sequencematch", "sequencecount", "sequencematchevents", "sequencenextnode"];

/// Makes one pair of brackets of two: `windowFunnel(3600, 'strict_order', at, a, b)`. Several modes become one text.
pub(super) fn respell(tokens: &mut [TokenWithSpan]) {
    let is_meant = |token: &TokenWithSpan| kind_of(&token.token).is_some();
    if !tokens.iter().any(is_meant) {
        return;
    }
    let closes = closing(tokens);
    for at in 0..tokens.len() {
        let Some(is_funnel) = kind_of(&tokens[at].token) else { continue };
        let closed = |at: Option<usize>| at.and_then(|at| closes[at].map(|close| (at, close)));
        let Some((opens, close)) = closed(next(tokens, at + 1)) else { continue };
        let Some((opens_again, _)) = closed(next(tokens, close + 1)) else { continue };
        if next(tokens, opens_again + 1).is_some_and(|at| begins_query(&tokens[at].token)) {
            continue;
        }
        if is_funnel {
            join_modes(&mut tokens[opens + 1..close]);
        }
        tokens[close].token = Token::Comma;
        tokens[opens_again].token = SPACE;
    }
}

const SPACE: Token = Token::Whitespace(Whitespace::Space);

/// Whether a token is the name of a funnel, or of a sequence.
fn kind_of(token: &Token) -> Option<bool> {
    let Token::Word(word) = token else { return None };
    let is =
        |families: &[&str]| families.iter().any(|family| super::is_of_family(&word.value, family));
    match (is(&FUNNELS), is(&SEQUENCES)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// Whether rows follow: those for columns of a table that has such a name.
fn begins_query(token: &Token) -> bool {
    let words = [Keyword::SELECT, Keyword::VALUES, Keyword::WITH];
    matches!(token, Token::Word(word) if words.contains(&word.keyword))
}

/// Makes one text of those at the end of the first brackets, the first of which comes after a comma.
fn join_modes(tokens: &mut [TokenWithSpan]) {
    let meant = (0..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_)));
    let meant: Vec<usize> = meant.collect();
    let mut texts = Vec::new();
    for pair in meant.rchunks(2) {
        match pair {
            [comma, text] if tokens[*comma].token == Token::Comma => match &tokens[*text].token {
                Token::SingleQuotedString(mode) => texts.push((*comma, *text, mode.clone())),
                _ => break,
            },
            _ => break,
        }
    }
    let modes: Vec<&str> = texts.iter().rev().map(|(_, _, mode)| mode.as_str()).collect();
    let all = modes.join(",");
    let Some((_, first, _)) = texts.pop() else { return };
    tokens[first].token = Token::SingleQuotedString(all);
    for (comma, text, _) in texts {
        (tokens[comma].token, tokens[text].token) = (SPACE, SPACE);
    }
}

/// The place of the first token from `at` on that is more than space.
fn next(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    (at..tokens.len()).find(|at| !matches!(tokens[*at].token, Token::Whitespace(_)))
}

/// For each opening bracket the place of the one that closes it.
fn closing(tokens: &[TokenWithSpan]) -> Vec<Option<usize>> {
    let (mut closes, mut open) = (vec![None; tokens.len()], Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => open.push(at),
            Token::RParen => {
                if let Some(opened) = open.pop() {
                    closes[opened] = Some(at);
                }
            }
            _ => {}
        }
    }
    closes
}

#[cfg(test)]
mod tests {
    use crate::dialect::{parse_statement, tokenize};

    fn respelt(expression: &str) -> String {
        let tokens = tokenize(&format!("SELECT {expression} FROM t")).unwrap();
        let text = parse_statement(tokens).unwrap().to_string();
        text.trim_start_matches("SELECT ").trim_end_matches(" FROM t").to_owned()
    }

    #[test]
    fn two_pairs_of_brackets_become_one() {
        for (given, expected) in [
            ("windowFunnel(10)(at, a = 1, b)", "windowFunnel(10, at, a = 1, b)"),
            (
                "windowFunnel (f(1, 2), 'strict_order') (at, b)",
                "windowFunnel(f(1, 2), 'strict_order', at, b)",
            ),
            (
                "windowFunnel(INTERVAL '1 day', 'strict_once' , 'strict_increase')(at, b)",
                "windowFunnel(INTERVAL '1 day', 'strict_once,strict_increase', at, b)",
            ),
            ("sequenceMatch('(?1)(?2)')(at, a, b)", "sequenceMatch('(?1)(?2)', at, a, b)"),
            (
                "sequenceNextNode('forward', 'head')(at, page, a, b)",
                "sequenceNextNode('forward', 'head', at, page, a, b)",
            ),
            ("window_funnel(10, 'default', at, b)", "window_funnel(10, 'default', at, b)"),
            ("sum(windowFunnel(1)(at, (a))) + (1)", "sum(windowFunnel(1, at, (a))) + (1)"),
        ] {
            assert_eq!(respelt(given), expected);
        }
        assert!(parse_statement(tokenize("SELECT f(1)(2)").unwrap()).is_err());
        let insert = "INSERT INTO window_funnel (a) (SELECT 1)";
        assert_eq!(parse_statement(tokenize(insert).unwrap()).unwrap().to_string(), insert);
    }
}
