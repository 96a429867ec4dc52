//! How figures become scores, and scores a segment.

use super::super::{Request, misuse, relation_name};
use crate::dialect::literal;
use crate::error::Result;

/// The figures, and whether more of them is better.
pub(super) const MEASURES: [(&str, &str, bool); 3] =
    [("recency_days", "r", false), ("frequency", "f", true), ("monetary", "m", true)];

/// How customers are scored and named.
pub(in super::super) struct Scoring {
    method: &'static str,
    bins: i64,
    is_nested: bool,
    is_inclusive: bool,
    /// Thresholds of each measure, for `fixed`.
    fixed: [Option<Vec<f64>>; 3],
    /// The relation of thresholds that were kept.
    scores_from: Option<String>,
    segments: &'static str,
    /// The relation of rules of one's own.
    rules: Option<String>,
}

impl Scoring {
    /// High and low against the mean of the values, eight segments.
    pub(in super::super) fn eight() -> Self {
        Self {
            method: "quantile",
            bins: 5,
            is_nested: false,
            is_inclusive: false,
            fixed: [None, None, None],
            scores_from: None,
            segments: "eight",
            rules: None,
        }
    }

    /// Reads the arguments that say how to score.
    pub(super) fn read(request: &mut Request) -> Result<Self> {
        let function = request.function;
        let arguments = &mut request.arguments;
        let method =
            arguments.word("method", &["quantile", "ntile", "rank", "fixed", "mean", "median"])?;
        let given_bins = arguments.number("bins", 2..=100)?;
        let is_nested = arguments.flag("nested")?;
        let is_inclusive = arguments.flag("inclusive")?;
        let fixed = [
            arguments.numbers("r_cuts")?,
            arguments.numbers("f_cuts")?,
            arguments.numbers("m_cuts")?,
        ];
        let scores_from = arguments.text("scores_from")?;
        let segments = arguments.word("segments", &["eight", "eight_zh", "r10", "putler11"])?;
        let rules = arguments.text("segment_rules")?;
        let wrong = |problem: String| Err(misuse(function, problem));
        let is_centre = ["mean", "median"].contains(&method);
        if is_nested && !["quantile", "ntile"].contains(&method) {
            return wrong(format!(
                "nested is for quantile and ntile, not for method => '{method}'"
            ));
        }
        if is_inclusive && !is_centre {
            return wrong(format!(
                "inclusive is for mean and median, not for method => '{method}'"
            ));
        }
        if scores_from.is_some() && (method != "quantile" || is_nested || given_bins.is_some()) {
            return wrong(
                "scores_from brings its own thresholds: it goes without method, bins, nested and fixed cuts"
                    .to_owned(),
            );
        }
        if (method == "fixed") != fixed.iter().any(Option::is_some)
            || method == "fixed" && fixed.iter().any(Option::is_none)
        {
            return wrong("method => 'fixed' takes r_cuts, f_cuts and m_cuts, all three, and no other method does".to_owned());
        }
        for (cuts, (_, name, _)) in fixed.iter().zip(MEASURES) {
            let rises =
                |cuts: &Vec<f64>| !cuts.is_empty() && cuts.windows(2).all(|pair| pair[0] < pair[1]);
            if cuts.as_ref().is_some_and(|cuts| !rises(cuts)) {
                return wrong(format!("{name}_cuts is to rise from one threshold to the next"));
            }
        }
        let bins = match &fixed {
            [Some(r), Some(f), Some(m)] => {
                if r.len() != f.len() || f.len() != m.len() || given_bins.is_some() {
                    return wrong(
                        "r_cuts, f_cuts and m_cuts have one length, which gives the bins"
                            .to_owned(),
                    );
                }
                r.len() as i64 + 1
            }
            _ if is_centre => 2,
            _ => given_bins.unwrap_or(5),
        };
        if is_centre && given_bins.is_some() {
            return wrong(format!("method => '{method}' has two levels: leave bins out"));
        }
        if rules.is_none()
            && bins != 5
            && scores_from.is_none()
            && ["r10", "putler11"].contains(&segments)
        {
            let instead = match is_centre {
                true => {
                    format!("method => '{method}' gives high and low; another method is needed")
                }
                false => "leave bins at 5".to_owned(),
            };
            return wrong(format!(
                "segments => '{segments}' is defined over scores of 1 to 5; {instead}"
            ));
        }
        Ok(Self { method, bins, is_nested, is_inclusive, fixed, scores_from, segments, rules })
    }

    /// The method, in words.
    pub(super) fn described(&self) -> String {
        let nested = if self.is_nested { " nested" } else { "" };
        let inclusive = if self.is_inclusive { " inclusive" } else { "" };
        let how = match &self.scores_from {
            Some(relation) => format!("thresholds of {relation}"),
            None => format!("{} of {}{nested}{inclusive}", self.method, self.bins),
        };
        let named = match (&self.rules, self.segments, self.method) {
            (Some(rules), ..) => format!("rules of {rules}"),
            (None, "eight" | "eight_zh", _) if self.scores_from.is_some() => {
                format!("{} by the kept centre", self.segments)
            }
            (None, "eight" | "eight_zh", "median") => format!("{} by the median", self.segments),
            (None, "eight" | "eight_zh", _) => format!("{} by the mean", self.segments),
            (None, set, _) => format!("{set} by scores"),
        };
        format!("{how}; segments {named}")
    }

    /// Customers with their scores and segments. `people` has `__bought`; who never bought has scores of 0.
    pub(super) fn scored(&self, names: &str, people: &str, described: &str) -> String {
        let [r, f, m] = MEASURES.map(|(column, ..)| of_buyers(column));
        let totals = format!(
            "SELECT *, count(*) FILTER (WHERE __bought) OVER () AS __n, sum({r}) OVER () AS __r_sum, \
               sum({f}) OVER () AS __f_sum, sum({m}) OVER () AS __m_sum \
             FROM ({people}) AS __people"
        );
        let high = MEASURES.map(|measure| self.is_high(measure)).join(", ");
        let mut scored = format!("SELECT *, {high} FROM ({totals}) AS __totals");
        // Within a score of R, and of F, the next is scored: one after the other.
        for (at, (_, name, _)) in MEASURES.into_iter().enumerate() {
            let score = self.score(at, names);
            scored = format!(
                "SELECT *, CAST(coalesce({score}, 0) AS INT) AS {name} FROM ({scored}) AS __before_{name}"
            );
        }
        let segment = self.segment();
        format!(
            "SELECT {names}, recency_days, frequency, monetary, r, f, m, \
               concat(CAST(r AS TEXT), CAST(f AS TEXT), CAST(m AS TEXT)) AS rfm, {segment} AS segment, \
               __as_of AS as_of, {} AS method \
             FROM ({scored}) AS __scored",
            literal(described)
        )
    }

    /// Whether a figure is high against the centre, as `__r`, `__f` or `__m`.
    fn is_high(&self, (column, name, more_is_better): (&str, &str, bool)) -> String {
        let value = of_buyers(column);
        let condition = if let Some(kept) = self.kept(column) {
            let sign = if more_is_better { ">" } else { "<" };
            format!("{value} {sign} ({kept})[1]")
        } else if self.method == "median" {
            // Two classes part at the median; the better one is strictly beyond it, or the other is where the median itself counts.
            let is_up = more_is_better != self.is_inclusive;
            let sign = if is_up { "" } else { "-" };
            let beyond = format!("quantile_score({sign}({value}), 2) OVER () = 2");
            if self.is_inclusive { format!("NOT ({beyond})") } else { beyond }
        } else {
            let sign = match (more_is_better, self.is_inclusive) {
                (true, false) => ">",
                (true, true) => ">=",
                (false, false) => "<",
                (false, true) => "<=",
            };
            format!("{value} * __n {sign} __{name}_sum")
        };
        format!("CAST(coalesce({condition}, false) AS BIGINT) AS __{name}")
    }

    /// The score of a measure as SQL, which may use those of the measures before it; NULL for who never bought.
    fn score(&self, at: usize, names: &str) -> String {
        let (column, name, more_is_better) = MEASURES[at];
        let value = of_buyers(column);
        // The classes that are scored each for itself.
        let nested = if self.is_nested { &MEASURES[..at] } else { &[] };
        let nested = nested.iter().map(|(_, name, _)| *name);
        let over = |classes: Vec<&str>| match classes.is_empty() {
            true => String::new(),
            false => format!("PARTITION BY {}", classes.join(", ")),
        };
        let bins = self.bins;
        let from_best = |score: String| match more_is_better {
            true => score,
            false => format!("{} - {score}", bins + 1),
        };
        if let Some(kept) = self.kept(column) {
            // The first is the centre.
            let score = format!("score_fixed({value}, array_pop_front({kept}))");
            return match more_is_better {
                true => score,
                false => format!("CAST(array_length({kept}) AS BIGINT) + 1 - {score}"),
            };
        }
        match self.method {
            "ntile" => {
                let of_class = over(std::iter::once("__bought").chain(nested).collect());
                let ntile = format!("ntile({bins}) OVER ({of_class} ORDER BY {column}, {names})");
                of_buyers(&from_best(format!("CAST({ntile} AS BIGINT)")))
            }
            "rank" => {
                let rank = format!("rank() OVER (PARTITION BY __bought ORDER BY {column})");
                of_buyers(&from_best(format!("(CAST({rank} AS BIGINT) * {bins} + __n - 1) / __n")))
            }
            "fixed" => {
                let cuts: Vec<String> =
                    self.fixed[at].iter().flatten().map(ToString::to_string).collect();
                from_best(format!("score_fixed({value}, ARRAY[{}])", cuts.join(", ")))
            }
            "mean" | "median" => of_buyers(&format!("__{name} + 1")),
            _ => {
                let of_class = over(nested.collect());
                from_best(format!("quantile_score({value}, {bins}) OVER ({of_class})"))
            }
        }
    }

    /// The kept centre of a measure and its thresholds, as SQL.
    fn kept(&self, column: &str) -> Option<String> {
        let relation = relation_name(self.scores_from.as_ref()?);
        let text = |column: &str| format!("coalesce(CAST({column} AS TEXT), '')");
        let decimal = |column: &str| text(&format!("CAST({column} AS DECIMAL(38, 6))"));
        let row =
            [text("measure"), text("as_of"), text("cut"), decimal("value"), decimal("centre")];
        let is_of_five = self.rules.is_none() && ["r10", "putler11"].contains(&self.segments);
        Some(format!(
            "__kept_cuts((SELECT array_agg({}) FROM {relation}), {}, {})",
            row.join(" || '|' || "),
            literal(column),
            if is_of_five { 4 } else { 0 }
        ))
    }

    /// What each measure is high or low against, as SQL over the figures.
    pub(super) fn centres(&self) -> [String; 3] {
        MEASURES.map(|(column, ..)| {
            let value = format!("CAST({column} AS DECIMAL(38, 6))");
            match self.method {
                "median" => format!("(quantile_cuts({value}, 2) FILTER (WHERE __bought))[1]"),
                _ => format!("CAST(avg({value}) FILTER (WHERE __bought) AS DECIMAL(38, 6))"),
            }
        })
    }

    /// The name of a customer's segment, as SQL.
    fn segment(&self) -> String {
        if let Some(rules) = &self.rules {
            // A rule as a text: its ranges, where NULL is no bound, and its name.
            let bounds = ["r_lo", "r_hi", "f_lo", "f_hi", "m_lo", "m_hi"]
                .map(|bound| format!("coalesce(CAST({bound} AS TEXT), '')"))
                .join(" || '|' || ");
            return format!(
                "__own_segment(r, f, m, (SELECT array_agg({bounds} || '|' || name ORDER BY priority, name) FROM {}))",
                relation_name(rules)
            );
        }
        if self.segments.starts_with("eight") {
            return format!("rfm_segment(__r, __f, __m, {})", literal(self.segments));
        }
        format!(
            "rfm_segment(CAST(r AS BIGINT), CAST(f AS BIGINT), CAST(m AS BIGINT), {})",
            literal(self.segments)
        )
    }

    /// The thresholds of each measure as an array of DECIMAL(38, 6), as SQL over the figures; `None` where the method has none.
    pub(super) fn cuts(&self) -> Option<[String; 3]> {
        if self.is_nested || self.scores_from.is_some() {
            return None;
        }
        let of = |at: usize| -> Option<String> {
            let column = MEASURES[at].0;
            let value = format!("CAST({column} AS DECIMAL(38, 6))");
            Some(match self.method {
                "quantile" => {
                    format!("quantile_cuts({value}, {}) FILTER (WHERE __bought)", self.bins)
                }
                "median" => format!("quantile_cuts({value}, 2) FILTER (WHERE __bought)"),
                "mean" => format!(
                    "make_array(CAST(avg({value}) FILTER (WHERE __bought) AS DECIMAL(38, 6)))"
                ),
                "fixed" => {
                    let cuts: Vec<String> = self.fixed[at]
                        .iter()
                        .flatten()
                        .map(|cut| format!("CAST({cut} AS DECIMAL(38, 6))"))
                        .collect();
                    format!("ARRAY[{}]", cuts.join(", "))
                }
                _ => return None,
            })
        };
        Some([of(0)?, of(1)?, of(2)?])
    }

    /// Why there are no thresholds.
    pub(super) fn has_no_cuts(&self) -> String {
        match (&self.scores_from, self.is_nested) {
            (Some(_), _) => "the thresholds of scores_from are there already".to_owned(),
            (None, true) => {
                "nested scores have thresholds in each class, and not one set".to_owned()
            }
            (None, false) => {
                format!("method => '{}' goes by place, not by thresholds", self.method)
            }
        }
    }
}

/// A value of those who bought: who never did moves no threshold and has no score.
fn of_buyers(value: &str) -> String {
    format!("CASE WHEN __bought THEN {value} END")
}
