//! Texts that come again and again, each kept once.

use arrow::array::{Array, StringViewArray};
use hashbrown::HashTable;

/// Names by number, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: HashTable<u32>,
    texts: Vec<Box<str>>,
    /// The view of a text that is so short that the view is all of it; 0 for others.
    views: Vec<u128>,
    bytes: usize,
}

/// Stands for no name.
pub(crate) const NO_NAME: u32 = u32::MAX;

/// Longest text that lies in its view.
const INLINE_MAX: u32 = 12;

impl Names {
    /// The number of the text at `row`; [`NO_NAME`] for NULL.
    pub(crate) fn number_at(&mut self, texts: &StringViewArray, row: usize) -> u32 {
        if texts.is_null(row) {
            return NO_NAME;
        }
        let view = texts.views()[row];
        if view as u32 > INLINE_MAX {
            return self.number(texts.value(row));
        }
        let hash = mixed(view);
        match self.numbers.find(hash, |&number| self.views[number as usize] == view) {
            Some(&number) => number,
            None => self.add(hash, texts.value(row), view),
        }
    }

    /// The number of a text.
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        let view = inline_view(text);
        let hash = if view == 0 { hashed(text) } else { mixed(view) };
        match self.numbers.find(hash, |&number| &*self.texts[number as usize] == text) {
            Some(&number) => number,
            None => self.add(hash, text, view),
        }
    }

    /// The number of a text that came before.
    pub(crate) fn known(&self, text: &str) -> Option<u32> {
        let view = inline_view(text);
        let hash = if view == 0 { hashed(text) } else { mixed(view) };
        self.numbers.find(hash, |&number| &*self.texts[number as usize] == text).copied()
    }

    fn add(&mut self, hash: u64, text: &str, view: u128) -> u32 {
        let number = self.texts.len() as u32;
        self.texts.push(text.into());
        self.views.push(view);
        self.bytes += text.len() + size_of::<Box<str>>() + size_of::<u128>() + 2 * size_of::<u32>();
        let (texts, views) = (&self.texts, &self.views);
        self.numbers.insert_unique(hash, number, |&number| match views[number as usize] {
            0 => hashed(&texts[number as usize]),
            view => mixed(view),
        });
        number
    }

    pub(crate) fn text(&self, number: u32) -> Option<&str> {
        self.texts.get(number as usize).map(|text| &**text)
    }

    /// All of them, by number.
    pub(crate) fn array(&self) -> StringViewArray {
        self.texts.iter().map(|text| Some(&**text)).collect()
    }

    /// By number, the place of a name among all in order. Numbers go with the order of rows, places do not.
    pub(crate) fn places(&self) -> Vec<u32> {
        let mut in_order: Vec<u32> = (0..self.texts.len() as u32).collect();
        in_order.sort_unstable_by_key(|number| &self.texts[*number as usize]);
        let mut places = vec![0; in_order.len()];
        for (place, number) in in_order.iter().enumerate() {
            places[*number as usize] = place as u32;
        }
        places
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The view of a short text as Arrow has it: its length, then its bytes, then zeros; 0 for a long text and the empty one.
fn inline_view(text: &str) -> u128 {
    if text.len() as u32 > INLINE_MAX {
        return 0;
    }
    let mut view = [0; 16];
    view[..4].copy_from_slice(&(text.len() as u32).to_le_bytes());
    view[4..4 + text.len()].copy_from_slice(text.as_bytes());
    u128::from_le_bytes(view)
}

fn mixed(view: u128) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (low, high) = (view as u64, (view >> 64) as u64);
    let product = u128::from(low ^ high.rotate_left(23)) * u128::from(ODD);
    let product = u128::from((product >> 64) as u64 ^ product as u64 ^ high) * u128::from(ODD);
    (product >> 64) as u64 ^ product as u64
}

fn hashed(text: &str) -> u64 {
    let chunk = |chunk: &[u8]| {
        let mut bytes = [0; 16];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u128::from_le_bytes(bytes)
    };
    let words = text.as_bytes().chunks(16).map(chunk);
    words.fold(text.len() as u64, |hash, word| mixed(word ^ u128::from(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number_however_it_comes() {
        let texts = [
            "",
            "pay",
            "a text of more than twelve",
            "pay\0",
            "cafe",
            "a text of more than twelvf",
        ];
        let array = StringViewArray::from(texts.to_vec());
        let mut names = Names::default();
        for (row, text) in texts.iter().enumerate() {
            assert_eq!(names.number_at(&array, row), row as u32);
            assert_eq!((names.number(text), names.known(text)), (row as u32, Some(row as u32)));
            assert_eq!(names.number_at(&array, row), row as u32);
            assert_eq!(names.text(row as u32), Some(*text));
        }
        assert_eq!((names.known("other"), names.text(NO_NAME)), (None, None));
        assert_eq!(names.places(), [0, 4, 1, 5, 3, 2]);
    }
}
