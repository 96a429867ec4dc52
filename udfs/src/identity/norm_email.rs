//! `norm_email(text)`: one spelling for every email address.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::norm_id::Reject;
use super::text::{fold, is_null_word, map_text};

/// The address in lower case, with full-width characters folded and outer blanks removed.
///
/// Dots and plus tags are kept, because only some providers ignore them. NULL for an empty or null word, a placeholder
/// (`test@test.com`, anything at `example.com`) and what is not `name@domain.tld`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormEmail {
    signature: Signature,
}

impl NormEmail {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }
    }
}

impl Default for NormEmail {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for NormEmail {
    fn name(&self) -> &str {
        "norm_email"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        map_text(&args, |text| clean_email(text).ok().map(Cow::into_owned))
    }
}

/// Whether an address is kept as it is written, for all that its bytes tell: its name has a digit, so that it is no word that stands for
/// none.
pub(super) fn is_clean_email(raw: &str) -> bool {
    const DIGIT: u8 = 1;
    const OTHER: u8 = 2;
    static KINDS: [u8; 256] = {
        let (mut kinds, mut byte) = ([OTHER; 256], 0);
        while byte < kinds.len() {
            kinds[byte] = match byte as u8 {
                b'0'..=b'9' => DIGIT,
                b'a'..=b'z' | b'.' | b'_' | b'+' | b'-' => 0,
                _ => OTHER,
            };
            byte += 1;
        }
        kinds
    };
    let (mut at, mut kinds) = (0, 0);
    let bytes = raw.as_bytes();
    while at < bytes.len() && bytes[at] != b'@' {
        kinds |= KINDS[usize::from(bytes[at])];
        at += 1;
    }
    kinds == DIGIT
        && bytes.len() <= BYTES_MAX
        && bytes.get(at + 1..).is_some_and(is_clean_domain)
        && !is_reserved(&raw[at + 1..])
}

/// Whether a domain of small letters is one.
fn is_clean_domain(domain: &[u8]) -> bool {
    let (mut before, mut top) = (b'.', None);
    for (at, byte) in domain.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'-' if before != b'.' => {}
            b'.' if before != b'.' && before != b'-' => top = Some(at + 1),
            _ => return false,
        }
        before = *byte;
    }
    let top = top.map_or(&[][..], |at| &domain[at..]);
    top.len() >= 2 && before != b'-' && !top.iter().all(u8::is_ascii_digit)
}

/// Bytes of the longest address that is taken for one.
const BYTES_MAX: usize = 254;

pub(super) fn clean_email(raw: &str) -> Result<Cow<'_, str>, Reject> {
    let folded = fold(raw);
    if is_null_word(&folded) {
        return Err(Reject::Null);
    }
    let is_lower = folded.is_ascii() && !folded.bytes().any(|byte| byte.is_ascii_uppercase());
    let email = if is_lower { folded } else { Cow::Owned(folded.to_lowercase()) };
    let Some((name, domain)) = email.rsplit_once('@') else {
        return Err(Reject::Invalid);
    };
    if !name.is_empty() && is_null_word(name)
        || matches!(name, "test" | "noreply" | "no-reply")
        || is_reserved(domain)
    {
        return Err(Reject::Placeholder);
    }
    let is_well_formed = !name.is_empty()
        && email.len() <= BYTES_MAX
        && !email.contains(|c: char| c.is_whitespace() || c.is_control())
        && !name.contains(['@', ',', ';', '<', '>', '"'])
        && is_domain(domain);
    if is_well_formed { Ok(email) } else { Err(Reject::Invalid) }
}

/// Domains that no person's mail arrives at (RFC 2606, and the two that forms are tested with).
fn is_reserved(domain: &str) -> bool {
    matches!(domain, "example.com" | "example.net" | "example.org" | "test.com" | "email.com")
        || domain.ends_with(".invalid")
        || domain.ends_with(".test")
}

fn is_domain(domain: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let top = domain.rsplit('.').next().unwrap_or("");
    domain.contains('.')
        && domain.split('.').all(label)
        && top.len() >= 2
        && !top.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_agree() {
        for spelling in ["Li.Lei+shop@QQ.com", " li.lei+shop@qq.com ", "li.lei+shop＠qq．com"] {
            assert_eq!(clean_email(spelling).as_deref(), Ok("li.lei+shop@qq.com"), "{spelling:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        assert_eq!(clean_email("none"), Err(Reject::Null));
        assert_eq!(clean_email("test@test.com"), Err(Reject::Placeholder));
        assert_eq!(clean_email("null@qq.com"), Err(Reject::Placeholder));
        for bad in
            ["a@b", "a.qq.com", "@qq.com", "a b@qq.com", "a@@qq.com", "a@qq..com", "a@1.2.3.4"]
        {
            assert_eq!(clean_email(bad), Err(Reject::Invalid), "{bad:?}");
        }
    }
}
