//! Numbers that carry their own proof: Chinese identity numbers (GB 11643-1999) and device numbers (IMEI, 3GPP TS 23.003).

use chrono::NaiveDate;

use super::norm_id::Reject;
use super::text::{fold, is_null_word};

/// Whether an identity number is kept as it is written.
pub(super) fn is_clean_id_card(raw: &str) -> bool {
    let Some((digits, [check])) = raw.as_bytes().split_first_chunk::<17>() else { return false };
    digits.iter().all(u8::is_ascii_digit)
        && digits[0] != b'0'
        && digits.iter().any(|digit| *digit != digits[0])
        && is_date(&digits[6..14])
        && id_card_check(digits) == *check
}

/// An identity number as its 18 characters; one of 15 digits, as issued until 1999, gets its century and check digit.
pub(super) fn clean_id_card(raw: &str) -> Result<String, Reject> {
    let number = digits_of(raw)?;
    let number = match number.len() {
        15 => {
            let long = format!("{}19{}", &number[..6], &number[6..]);
            let check = long.as_bytes().first_chunk().map(id_card_check);
            format!("{long}{}", char::from(check.ok_or(Reject::Invalid)?))
        }
        _ => number,
    };
    let Some((digits, [check])) = number.as_bytes().split_first_chunk::<17>() else {
        return Err(Reject::Invalid);
    };
    let is_right = digits.iter().all(u8::is_ascii_digit)
        && id_card_check(digits) == *check
        && digits[0] != b'0'
        && is_date(&digits[6..14]);
    if is_right { Ok(number) } else { Err(Reject::Invalid) }
}

/// Whether eight digits are a day of the calendar.
fn is_date(digits: &[u8]) -> bool {
    let number = |part: &[u8]| part.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    let (year, month) = (number(&digits[..4]), number(&digits[4..6]));
    NaiveDate::from_ymd_opt(year.cast_signed(), month, number(&digits[6..])).is_some()
}

/// A device number as its 15 digits.
pub(super) fn clean_imei(raw: &str) -> Result<String, Reject> {
    let number = digits_of(raw)?;
    let is_digits = number.len() == 15 && number.bytes().all(|b| b.is_ascii_digit());
    if is_digits && luhn(&number) { Ok(number) } else { Err(Reject::Invalid) }
}

/// Digits, and an X at the end, without the blanks and strokes that people put between them.
fn digits_of(raw: &str) -> Result<String, Reject> {
    let folded = fold(raw);
    if is_null_word(&folded) {
        return Err(Reject::Null);
    }
    let number: String = folded.chars().filter(|c| !matches!(c, ' ' | '-' | '/')).collect();
    let number = number.to_ascii_uppercase();
    let mut bytes = number.bytes();
    if let Some(first) = bytes.next()
        && bytes.all(|b| b == first)
    {
        return Err(Reject::Placeholder);
    }
    let digits = number.strip_suffix('X').unwrap_or(&number);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reject::Invalid);
    }
    Ok(number)
}

/// ISO 7064 MOD 11-2 of 17 digits.
fn id_card_check(digits: &[u8; 17]) -> u8 {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let weighted = digits.iter().zip(WEIGHTS);
    let sum: u32 =
        weighted.map(|(digit, weight)| u32::from(digit.wrapping_sub(b'0')) * weight).sum();
    b"10X98765432"[(sum % 11) as usize]
}

fn luhn(digits: &str) -> bool {
    let doubled = |(i, c): (usize, char)| {
        let digit = c.to_digit(10).unwrap_or(0);
        match i % 2 {
            0 => digit,
            _ => digit * 2 - if digit > 4 { 9 } else { 0 },
        }
    };
    digits.chars().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GB 11643-1999.
    #[test]
    fn identity_numbers_prove_themselves() {
        assert_eq!(clean_id_card("11010519491231002x").as_deref(), Ok("11010519491231002X"));
        assert_eq!(clean_id_card(" 110105 19491231 002Ｘ ").as_deref(), Ok("11010519491231002X"));
        assert_eq!(clean_id_card("110105491231002").as_deref(), Ok("11010519491231002X"));
        assert_eq!(clean_id_card("110105194912310021"), Err(Reject::Invalid));
        assert_eq!(clean_id_card("11010519491331002X"), Err(Reject::Invalid));
        assert_eq!(clean_id_card("111111111111111111"), Err(Reject::Placeholder));
        assert_eq!(clean_id_card("n/a"), Err(Reject::Null));
        assert_eq!(clean_id_card("数"), Err(Reject::Invalid));
    }

    /// Every change of one digit, and every swap of two neighbours that differ, is found.
    #[test]
    fn one_wrong_digit_is_found() {
        let right = "11010519491231002X";
        for at in 0..17 {
            for digit in '0'..='9' {
                let mut wrong: Vec<char> = right.chars().collect();
                if wrong[at] != digit {
                    wrong[at] = digit;
                    let wrong: String = wrong.iter().collect();
                    assert_eq!(clean_id_card(&wrong), Err(Reject::Invalid), "{wrong}");
                }
            }
        }
    }

    #[test]
    fn device_numbers_prove_themselves() {
        assert_eq!(clean_imei("49-015420-323751-8").as_deref(), Ok("490154203237518"));
        assert_eq!(clean_imei("490154203237519"), Err(Reject::Invalid));
        assert_eq!(clean_imei("000000000000000"), Err(Reject::Placeholder));
        assert_eq!(clean_imei("a1000047ab12cd"), Err(Reject::Invalid));
    }
}
