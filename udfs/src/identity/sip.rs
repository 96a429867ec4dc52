//! SipHash-1-3, of 64 bits and of 128, of texts that follow a prefix, and of two texts at a time: a hash is a chain of steps of which each
//! waits for the one before, and two chains side by side take hardly longer than one.
//!
//! Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, and the 128 bits of their reference implementation. The hashes
//! are those of the crate `siphasher`, which the tests compare.

/// Hashes texts that follow a prefix under a key, in 128 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash128(AfterPrefix);

/// As [`Hash128`], in 64 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash64(AfterPrefix);

#[derive(Debug, Clone, Copy)]
struct AfterPrefix {
    state: State,
    /// The last bytes of the prefix, which are no whole word, and how many.
    tail: u64,
    tail_bytes: usize,
    /// Bytes of the prefix.
    bytes: usize,
}

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

#[derive(Debug, Clone, Copy)]
struct State([u64; 4]);

impl State {
    fn new(key: &[u8; 16]) -> Self {
        let (words, _) = key.as_chunks::<WORD>();
        let [low, high] = [words[0], words[1]].map(u64::from_le_bytes);
        Self([
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *b = b.rotate_left(13) ^ *a;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*d);
        *d = d.rotate_left(16) ^ *c;
        *a = a.wrapping_add(*d);
        *d = d.rotate_left(21) ^ *a;
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    #[inline(always)]
    fn folded(&self) -> u64 {
        self.0.iter().fold(0, |all, word| all ^ word)
    }
}

/// A text in words.
#[derive(Clone, Copy)]
struct Words<'a> {
    text: &'a [u8],
    /// Bytes of the prefix before it in the first word.
    before: usize,
}

impl Words<'_> {
    /// How many are whole.
    #[inline(always)]
    fn whole(self) -> usize {
        (self.before + self.text.len()) / WORD
    }

    /// Eight bytes from here on; those that are not there are zero.
    #[inline(always)]
    fn load(self, from: usize) -> u64 {
        match self.text.get(from..from + WORD) {
            Some(word) => u64::from_le_bytes(word.try_into().unwrap_or_default()),
            None => {
                let bytes = self.text.get(from..).unwrap_or_default().iter().rev();
                bytes.fold(0, |word, byte| (word << 8) | u64::from(*byte))
            }
        }
    }

    /// The first word, but for what the prefix has of it.
    #[inline(always)]
    fn first(self) -> u64 {
        self.load(0) << (self.before * 8)
    }

    /// One of the whole words after the first.
    #[inline(always)]
    fn word(self, at: usize) -> u64 {
        self.load(at * WORD - self.before)
    }

    /// What follows the whole words, where one of those is before it.
    #[inline(always)]
    fn rest(self) -> u64 {
        let bytes = (self.before + self.text.len()) % WORD;
        match self.text.len().checked_sub(WORD) {
            // The last eight bytes, without those that are in words.
            Some(from) if bytes > 0 => self.load(from) >> ((WORD - bytes) * 8),
            Some(_) => 0,
            None => self.load(self.text.len() - bytes),
        }
    }
}

impl AfterPrefix {
    /// With the state that the key gives.
    fn new(mut state: State, prefix: &[u8]) -> Self {
        let (words, rest) = prefix.as_chunks::<WORD>();
        words.iter().for_each(|word| state.absorb(u64::from_le_bytes(*word)));
        let tail = Words { text: rest, before: 0 }.load(0);
        Self { state, tail, tail_bytes: rest.len(), bytes: prefix.len() }
    }

    #[inline(always)]
    fn words<'a>(&self, text: &'a str) -> Words<'a> {
        Words { text: text.as_bytes(), before: self.tail_bytes }
    }

    /// The states once texts of so many whole words were absorbed.
    #[inline(always)]
    fn absorbed<const N: usize>(&self, texts: [Words<'_>; N], whole: usize) -> [State; N] {
        let mut states = [self.state; N];
        let mut rests = texts.map(|text| self.tail | text.first());
        if whole > 0 {
            for (state, first) in states.iter_mut().zip(rests) {
                state.absorb(first);
            }
            for at in 1..whole {
                for (state, text) in states.iter_mut().zip(texts) {
                    state.absorb(text.word(at));
                }
            }
            rests = texts.map(Words::rest);
        }
        for ((state, text), rest) in states.iter_mut().zip(texts).zip(rests) {
            let bytes = (self.bytes + text.text.len()) as u64;
            state.absorb((bytes << 56) | rest);
        }
        states
    }
}

/// Rounds at the end.
const LAST_ROUNDS: usize = 3;

impl Hash128 {
    /// Of texts after `prefix`.
    pub(super) fn new(key: &[u8; 16], prefix: &[u8]) -> Self {
        let mut state = State::new(key);
        state.0[1] ^= 0xee;
        Self(AfterPrefix::new(state, prefix))
    }

    /// The hashes of so many texts. They are computed side by side where they have as many words.
    #[inline]
    pub(super) fn hash<const N: usize>(&self, texts: [&str; N]) -> [[u64; 2]; N] {
        let words = texts.map(|text| self.0.words(text));
        let first = words.first().map_or(0, |text| text.whole());
        match words.iter().all(|text| text.whole() == first) {
            true => self.side_by_side(words, first),
            false => words.map(|text| self.side_by_side([text], text.whole())[0]),
        }
    }

    #[inline(always)]
    fn side_by_side<const N: usize>(&self, texts: [Words<'_>; N], whole: usize) -> [[u64; 2]; N] {
        let mut states = self.0.absorbed(texts, whole);
        let mut hashes = [[0; 2]; N];
        for (half, (word, sign)) in [(2, 0xee), (1, 0xdd)].into_iter().enumerate() {
            states.iter_mut().for_each(|state| state.0[word] ^= sign);
            for _ in 0..LAST_ROUNDS {
                states.iter_mut().for_each(State::round);
            }
            hashes.iter_mut().zip(&states).for_each(|(hash, state)| hash[half] = state.folded());
        }
        hashes
    }
}

impl Hash64 {
    /// Of texts after `prefix`.
    pub(super) fn new(key: &[u8; 16], prefix: &[u8]) -> Self {
        Self(AfterPrefix::new(State::new(key), prefix))
    }

    /// The hash of a text.
    #[inline]
    pub(super) fn hash(&self, text: &str) -> u64 {
        let words = self.0.words(text);
        let [mut state] = self.0.absorbed([words], words.whole());
        state.0[2] ^= 0xff;
        (0..LAST_ROUNDS).for_each(|_| state.round());
        state.folded()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::*;
    use siphasher::sip;
    use siphasher::sip128::{Hasher128, SipHasher13};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever is before and however long they are, alone or side by side.
        #[test]
        fn hashes_are_those_of_the_crate(
            key in any::<[u8; 16]>(), prefix in prop::collection::vec(any::<u8>(), 0..20), a in ".{0,40}", b in ".{0,40}"
        ) {
            let slow = |text: &str| {
                let mut hasher = SipHasher13::new_with_key(&key);
                hasher.write(&prefix);
                hasher.write(text.as_bytes());
                let hash = hasher.finish128();
                [hash.h1, hash.h2]
            };
            let after = Hash128::new(&key, &prefix);
            prop_assert_eq!(after.hash([a.as_str()]), [slow(&a)]);
            prop_assert_eq!(after.hash([a.as_str(), b.as_str()]), [slow(&a), slow(&b)]);
            let same = "x".repeat(b.len());
            prop_assert_eq!(after.hash([b.as_str(), same.as_str()]), [slow(&b), slow(&same)]);
            let mut hasher = sip::SipHasher13::new_with_key(&key);
            hasher.write(&prefix);
            hasher.write(a.as_bytes());
            prop_assert_eq!(Hash64::new(&key, &prefix).hash(&a), hasher.finish());
        }
    }
}
