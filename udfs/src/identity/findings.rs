//! What was found in rows of identifiers, in bytes: it is kept from run to run, so that rows are cleaned and hashed once.
//!
//! A finding depends on the row and the warehouse's secret alone. What rules make of it is decided when it is taken up.

use super::graph::Value;
use super::norm_id::Reject;

/// What became of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// An identifier, and when it was seen, in microseconds.
    Identifier(Value, Option<i64>),
    /// None.
    Rejected(Reject),
}

const IDENTIFIER: u8 = 0;
const IDENTIFIER_AT: u8 = 1;
const NULL: u8 = 2;
const PLACEHOLDER: u8 = 3;
const INVALID: u8 = 4;

/// Appends a finding and the number of its type.
pub fn push(bytes: &mut Vec<u8>, id_type: u16, finding: Finding) {
    bytes.extend(id_type.to_le_bytes());
    match finding {
        Finding::Identifier(value, seen_at) => {
            bytes.push(if seen_at.is_some() { IDENTIFIER_AT } else { IDENTIFIER });
            value.iter().for_each(|half| bytes.extend(half.to_le_bytes()));
            seen_at.iter().for_each(|at| bytes.extend(at.to_le_bytes()));
        }
        Finding::Rejected(Reject::Null) => bytes.push(NULL),
        Finding::Rejected(Reject::Placeholder) => bytes.push(PLACEHOLDER),
        Finding::Rejected(Reject::Invalid) => bytes.push(INVALID),
    }
}

/// Gives each finding with the number of its type; `None` when the bytes are none that [`push`] made.
pub fn each(mut bytes: &[u8], mut take: impl FnMut(u16, Finding)) -> Option<()> {
    fn eight(bytes: &mut &[u8]) -> Option<[u8; 8]> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*first)
    }
    while let Some((id_type, rest)) = bytes.split_first_chunk() {
        let (what, rest) = rest.split_first()?;
        bytes = rest;
        let finding = match *what {
            IDENTIFIER | IDENTIFIER_AT => {
                let mut half = || eight(&mut bytes).map(u64::from_le_bytes);
                let value = [half()?, half()?];
                let seen_at = match *what {
                    IDENTIFIER_AT => Some(i64::from_le_bytes(eight(&mut bytes)?)),
                    _ => None,
                };
                Finding::Identifier(value, seen_at)
            }
            NULL => Finding::Rejected(Reject::Null),
            PLACEHOLDER => Finding::Rejected(Reject::Placeholder),
            INVALID => Finding::Rejected(Reject::Invalid),
            _ => return None,
        };
        take(u16::from_le_bytes(*id_type), finding);
    }
    bytes.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finding() -> impl Strategy<Value = Finding> {
        prop_oneof![
            (any::<[u64; 2]>(), any::<Option<i64>>())
                .prop_map(|(value, at)| Finding::Identifier(value, at)),
            Just(Finding::Rejected(Reject::Null)),
            Just(Finding::Rejected(Reject::Placeholder)),
            Just(Finding::Rejected(Reject::Invalid)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_found(
            found in prop::collection::vec((any::<u16>(), finding()), 0..20), cut in 1usize..19
        ) {
            let mut bytes = Vec::new();
            found.iter().for_each(|(id_type, finding)| push(&mut bytes, *id_type, *finding));
            let mut read = Vec::new();
            prop_assert!(each(&bytes, |id_type, finding| read.push((id_type, finding))).is_some());
            prop_assert_eq!(&read, &found);
            // What is cut off is seen, or is whole findings.
            let part = &bytes[..bytes.len().saturating_sub(cut)];
            read.clear();
            if each(part, |id_type, finding| read.push((id_type, finding))).is_some() {
                prop_assert_eq!(&read[..], &found[..read.len()]);
            }
        }
    }
}
