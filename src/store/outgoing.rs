//! Bytes of a data file on their way into the store: summed up, and gathered in pieces that it takes as they are.

use std::io;

use bytes::Bytes;

use super::sums::{BlockSums, Summing};

/// Bytes of a piece.
const PIECE: usize = 256 * 1024;

/// What was written and not yet handed on.
#[derive(Default)]
pub(super) struct Outgoing {
    sums: Summing,
    full: Vec<Bytes>,
    open: Vec<u8>,
}

impl Outgoing {
    /// The pieces that are full.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.full)
    }

    /// All that is left, and the sums of all that was written.
    pub(super) fn finish(&mut self) -> (Vec<Bytes>, BlockSums) {
        let Self { sums, mut full, open } = std::mem::take(self);
        full.extend(Some(open).filter(|open| !open.is_empty()).map(Bytes::from));
        (full, sums.finish())
    }
}

impl io::Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sums.sum_up(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            // At once, so that nothing is moved while it grows.
            self.open.reserve_exact(PIECE - self.open.len());
            let (now, later) = rest.split_at(rest.len().min(PIECE - self.open.len()));
            self.open.extend_from_slice(now);
            if self.open.len() == PIECE {
                self.full.push(std::mem::take(&mut self.open).into());
            }
            rest = later;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// However bytes come and are taken, they are the same, and so are their sums.
    #[test]
    fn what_goes_out_is_what_was_written() {
        let bytes: Vec<u8> = (0..3 * PIECE + 1000).map(|at| (at * 31 % 251) as u8).collect();
        let mut sums = Vec::new();
        for step in [1000, PIECE - 1, PIECE, 2 * PIECE + 5, bytes.len()] {
            let mut outgoing = Outgoing::default();
            let mut sent: Vec<u8> = Vec::new();
            for piece in bytes.chunks(step) {
                outgoing.write_all(piece).unwrap();
                sent.extend(outgoing.take().concat());
            }
            assert_eq!(sent.len(), 3 * PIECE);
            let (rest, of_all) = outgoing.finish();
            sent.extend(rest.concat());
            assert!(sent == bytes, "in steps of {step}");
            sums.push(of_all);
        }
        assert!(sums.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(Outgoing::default().finish().0.is_empty());
    }
}
