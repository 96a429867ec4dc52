//! Templates of numbers: `FM999,990.00`.

use datafusion::error::Result;

use crate::BadArgument;

/// A number as its digits and how many of them stand behind the point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exact {
    pub(super) digits: i128,
    pub(super) scale: u32,
}

impl Exact {
    /// A float with so many decimals; `None` for what has no digits, or too many.
    pub(super) fn of_float(number: f64, decimals: usize) -> Option<Self> {
        if !number.is_finite() || number.abs() >= 1e22 {
            return None;
        }
        // The shortest text that means the float, as PostgreSQL shows it, rather than its binary expansion.
        let text = format!("{number}");
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let kept: String = fraction.chars().take(decimals + 1).collect();
        let digits = format!("{whole}{kept}").parse().ok()?;
        Some(Self { digits, scale: kept.len() as u32 })
    }

    /// Rounded half away from zero to `decimals`: the sign, the whole part, the fraction's digits.
    fn rounded(self, decimals: u32) -> (bool, u128, String) {
        let magnitude = self.digits.unsigned_abs();
        let scaled = if self.scale > decimals {
            let unit = 10u128.pow(self.scale - decimals);
            (magnitude + unit / 2) / unit
        } else {
            magnitude.saturating_mul(10u128.saturating_pow(decimals - self.scale))
        };
        let unit = 10u128.saturating_pow(decimals);
        let fraction = format!("{:0width$}", scaled % unit, width = decimals as usize);
        let fraction = if decimals == 0 { String::new() } else { fraction };
        (self.digits < 0 && scaled != 0, scaled / unit, fraction)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// `9`: a digit, blank when it leads with zero.
    Nine,
    /// `0`: a digit that is always there.
    Zero,
    /// `.` or `D`.
    Point,
    /// `,` or `G`: shown once a digit is.
    Group,
    /// `S`, `SG`: the sign where it stands, plus included.
    Sign,
    /// `MI`: a minus or a blank.
    Minus,
    /// `PL`: a plus or a blank.
    Plus,
    /// `TH`, `th`.
    Ordinal(bool),
    /// Anything else.
    Text(String),
}

/// A parsed template.
#[derive(Debug)]
pub(super) struct NumberTemplate {
    parts: Vec<Part>,
    fills: bool,
    brackets: bool,
}

impl NumberTemplate {
    pub(super) fn parse(template: &str) -> Result<Self> {
        let mut parsed = Self { parts: Vec::new(), fills: true, brackets: false };
        let mut rest = template;
        let mut saw_point = false;
        while !rest.is_empty() {
            let upper: String = rest.chars().take(4).collect::<String>().to_uppercase();
            let (part, length) = match upper.as_str() {
                u if u.starts_with("FM") => {
                    parsed.fills = false;
                    (None, 2)
                }
                u if u.starts_with("EEEE") || u.starts_with("RN") || u.starts_with('V') => {
                    let pattern = if u.starts_with('E') {
                        "EEEE"
                    } else {
                        &u[..1 + usize::from(u.starts_with("RN"))]
                    };
                    return Err(BadArgument::err(
                        "to_char",
                        "template",
                        format!("pattern {pattern} of numbers is not supported"),
                    ));
                }
                u if u.starts_with("MI") => (Some(Part::Minus), 2),
                u if u.starts_with("PL") => (Some(Part::Plus), 2),
                u if u.starts_with("SG") => (Some(Part::Sign), 2),
                u if u.starts_with("PR") => {
                    parsed.brackets = true;
                    (None, 2)
                }
                u if u.starts_with("TH") => (Some(Part::Ordinal(rest.starts_with("TH"))), 2),
                u if u.starts_with('S') => (Some(Part::Sign), 1),
                u if u.starts_with('9') => (Some(Part::Nine), 1),
                u if u.starts_with('0') => (Some(Part::Zero), 1),
                u if u.starts_with(['.', 'D']) => {
                    if std::mem::replace(&mut saw_point, true) {
                        return Err(BadArgument::err(
                            "to_char",
                            "template",
                            "has more than one decimal point",
                        ));
                    }
                    (Some(Part::Point), 1)
                }
                u if u.starts_with([',', 'G']) => (Some(Part::Group), 1),
                // There is no currency in the C locale.
                u if u.starts_with('L') => (Some(Part::Text(" ".to_owned())), 1),
                u if u.starts_with('"') => {
                    let end = rest[1..].find('"').map_or(rest.len(), |at| at + 1);
                    (Some(Part::Text(rest[1..end].to_owned())), (end + 1).min(rest.len()))
                }
                _ => {
                    let c = rest.chars().next().unwrap_or(' ');
                    (Some(Part::Text(c.to_string())), c.len_utf8())
                }
            };
            parsed.parts.extend(part);
            rest = &rest[length..];
        }
        Ok(parsed)
    }

    /// Digits behind the point.
    pub(super) fn decimals(&self) -> usize {
        let point = self.parts.iter().position(|p| *p == Part::Point);
        point.map_or(0, |at| self.count(&self.parts[at..]))
    }

    fn whole_digits(&self) -> usize {
        let point = self.parts.iter().position(|p| *p == Part::Point).unwrap_or(self.parts.len());
        self.count(&self.parts[..point])
    }

    fn count(&self, parts: &[Part]) -> usize {
        parts.iter().filter(|p| matches!(p, Part::Nine | Part::Zero)).count()
    }

    pub(super) fn write(&self, number: Exact) -> String {
        let (negative, whole, fraction) = number.rounded(self.decimals() as u32);
        let width = self.whole_digits();
        let digits = if whole == 0 { String::new() } else { whole.to_string() };
        if digits.len() > width {
            return self.overflow(negative);
        }
        // Zeros are shown from the first 0 of the template on.
        let first_zero = self
            .parts
            .iter()
            .filter(|p| !matches!(p, Part::Group))
            .take_while(|p| **p != Part::Point)
            .filter(|p| matches!(p, Part::Nine | Part::Zero))
            .position(|p| *p == Part::Zero)
            .unwrap_or(width);
        let first_digit = (width - digits.len()).min(first_zero);
        // A whole zero needs one digit when nothing stands behind the point.
        let first_digit = if whole == 0 && self.decimals() == 0 {
            first_digit.min(width.saturating_sub(1))
        } else {
            first_digit
        };
        let padded = format!("{:0>width$}", digits);
        let shown: Vec<Option<char>> =
            padded.chars().enumerate().map(|(i, c)| (i >= first_digit).then_some(c)).collect();
        self.assemble(negative, &shown, &fraction, whole)
    }

    /// What stands for a number that the template cannot hold.
    pub(super) fn overflow(&self, negative: bool) -> String {
        let shown = vec![Some('#'); self.whole_digits()];
        let fraction = "#".repeat(self.decimals());
        self.assemble(negative, &shown, &fraction, 0)
    }

    fn assemble(
        &self,
        negative: bool,
        whole: &[Option<char>],
        fraction: &str,
        number: u128,
    ) -> String {
        let places_sign =
            self.parts.iter().any(|p| matches!(p, Part::Sign | Part::Minus | Part::Plus));
        let sign = match (negative, self.brackets) {
            (true, true) => "<",
            (true, false) => "-",
            (false, _) => " ",
        };
        // A float's trailing zeros go with FM, where the template has 9.
        let kept = if self.fills { fraction.len() } else { self.kept_fraction(fraction) };
        let mut out = String::new();
        let mut signed = places_sign;
        let (mut at_whole, mut at_fraction, mut behind_point) = (0, 0, false);
        let blank = |out: &mut String| {
            if self.fills {
                out.push(' ');
            }
        };
        let put_sign = |out: &mut String, signed: &mut bool| {
            if !std::mem::replace(signed, true) && (self.fills || sign != " ") {
                out.push_str(sign);
            }
        };
        for part in &self.parts {
            match part {
                Part::Nine | Part::Zero if behind_point => {
                    if at_fraction < kept {
                        out.extend(fraction.chars().nth(at_fraction));
                    }
                    at_fraction += 1;
                }
                Part::Nine | Part::Zero => {
                    match whole.get(at_whole).copied().flatten() {
                        Some(digit) => {
                            put_sign(&mut out, &mut signed);
                            out.push(digit);
                        }
                        None => blank(&mut out),
                    }
                    at_whole += 1;
                }
                Part::Group => {
                    let has_digit = at_whole > 0 && whole[at_whole - 1].is_some();
                    if has_digit { out.push(',') } else { blank(&mut out) }
                }
                Part::Point => {
                    put_sign(&mut out, &mut signed);
                    behind_point = true;
                    out.push('.');
                }
                Part::Sign => out.push(if negative { '-' } else { '+' }),
                Part::Minus if negative => out.push('-'),
                Part::Plus if !negative => out.push('+'),
                Part::Minus | Part::Plus => blank(&mut out),
                Part::Ordinal(is_upper) => {
                    let suffix = match (number % 100, number % 10) {
                        (11..=13, _) => "th",
                        (_, 1) => "st",
                        (_, 2) => "nd",
                        (_, 3) => "rd",
                        _ => "th",
                    };
                    if !negative && !behind_point {
                        out.push_str(&if *is_upper {
                            suffix.to_uppercase()
                        } else {
                            suffix.to_owned()
                        });
                    }
                }
                Part::Text(text) => out.push_str(text),
            }
        }
        if self.brackets {
            out.push_str(if negative {
                ">"
            } else if self.fills {
                " "
            } else {
                ""
            });
        }
        out
    }

    /// Digits behind the point that stay with FM: those of 0, and all up to the last that is not zero.
    fn kept_fraction(&self, fraction: &str) -> usize {
        let point = self.parts.iter().position(|p| *p == Part::Point).unwrap_or(self.parts.len());
        let digits = self.parts[point..].iter().filter(|p| matches!(p, Part::Nine | Part::Zero));
        let last_zero =
            digits.enumerate().filter(|(_, p)| **p == Part::Zero).map(|(i, _)| i + 1).last();
        fraction.trim_end_matches('0').len().max(last_zero.unwrap_or(0))
    }

    /// Reads a number from a text that follows the template, more or less, as PostgreSQL does.
    pub(super) fn read(&self, text: &str, scale: u8) -> Option<i128> {
        let mut negative = false;
        let (mut whole, mut fraction) = (String::new(), String::new());
        let mut behind_point = false;
        for c in text.chars() {
            match c {
                '0'..='9' if behind_point => fraction.push(c),
                '0'..='9' => whole.push(c),
                '.' => behind_point = true,
                '-' | '<' => negative = true,
                _ => {}
            }
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        fraction.truncate(usize::from(scale));
        let digits: i128 =
            format!("{whole}{fraction:0<width$}", width = usize::from(scale)).parse().ok()?;
        (digits < 10i128.pow(38)).then_some(if negative { -digits } else { digits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(number: &str, template: &str) -> String {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{fraction}").parse().unwrap();
        let digits = if number.starts_with('-') && digits > 0 { -digits } else { digits };
        NumberTemplate::parse(template)
            .unwrap()
            .write(Exact { digits, scale: fraction.len() as u32 })
    }

    /// The examples of PostgreSQL's manual, table "to_char Examples" of chapter 9.8.
    #[test]
    fn the_manuals_examples() {
        for (number, template, expected) in [
            ("-0.1", "99.99", "  -.10"),
            ("-0.1", "FM9.99", "-.1"),
            ("0.1", "0.9", " 0.1"),
            ("12", "9990999.9", "    0012.0"),
            ("12", "FM9990999.9", "0012."),
            ("485", "999", " 485"),
            ("-485", "999", "-485"),
            ("485", "9 9 9", " 4 8 5"),
            ("1485", "9,999", " 1,485"),
            ("148.5", "999.999", " 148.500"),
            ("148.5", "FM999.999", "148.5"),
            ("148.5", "FM999.990", "148.500"),
            ("-485", "999S", "485-"),
            ("-485", "999MI", "485-"),
            ("485", "999MI", "485 "),
            ("485", "FM999MI", "485"),
            ("485", "PL999", "+485"),
            ("485", "SG999", "+485"),
            ("-485", "SG999", "-485"),
            ("-485", "9SG99", "4-85"),
            ("-485", "999PR", "<485>"),
            ("482", "999th", " 482nd"),
            ("485", "\"Good number:\"999", "Good number: 485"),
            ("485.8", "\"Pre:\"999\" Post:\" .999", "Pre: 485 Post: .800"),
        ] {
            assert_eq!(shown(number, template), expected, "{number} as {template}");
        }
        assert_eq!(shown("1234", "999"), " ###");
        assert_eq!(shown("0", "9"), " 0");
        assert_eq!(shown("1234567.891", "FM9,999,999.00"), "1,234,567.89");
        assert_eq!(shown("0.995", "FM990.00"), "1.00");
    }

    #[test]
    fn numbers_are_read_back() {
        let read =
            |text: &str, template: &str| NumberTemplate::parse(template).unwrap().read(text, 2);
        assert_eq!(read("12,454.8-", "99G999D9S"), Some(-1_245_480));
        assert_eq!(read("x", "999"), None);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let error = NumberTemplate::parse("9.99EEEE").unwrap_err();
        assert!(error.to_string().contains("EEEE"), "{error}");
    }
}
