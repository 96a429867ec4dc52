//! Which records are joined.

use std::sync::atomic::{AtomicU32, Ordering};

/// Union-find over a flat array; the root of a component is its smallest member, whatever order it was joined in.
#[derive(Debug, Clone)]
pub(super) struct Components {
    parent: Vec<u32>,
}

impl Components {
    /// Each of `len` members alone.
    pub(super) fn new(len: u32) -> Self {
        Self { parent: (0..len).collect() }
    }

    /// The smallest member of a member's component.
    pub(super) fn root(&mut self, mut of: u32) -> u32 {
        while self.parent[of as usize] != of {
            // Path halving: every other step is shortened for the next who comes along.
            let above = self.parent[self.parent[of as usize] as usize];
            self.parent[of as usize] = above;
            of = above;
        }
        of
    }

    /// Joins the components of two members.
    pub(super) fn union(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }

    /// The root of every member.
    pub(super) fn into_roots(mut self) -> Vec<u32> {
        // A parent is never larger than its child, so one pass in order is enough.
        for of in 0..self.parent.len() {
            self.parent[of] = self.parent[self.parent[of] as usize];
        }
        self.parent
    }
}

/// The same for several threads that join at once, in whatever order: the components, and so their roots, are the same.
#[derive(Debug)]
pub(super) struct Meeting {
    /// A parent is never larger than its child, and only ever gets smaller: whoever sees an old one goes a longer way.
    parent: Vec<AtomicU32>,
}

impl Meeting {
    /// Each of `len` members alone.
    pub(super) fn new(len: u32) -> Self {
        Self { parent: (0..len).map(AtomicU32::new).collect() }
    }

    fn above(&self, of: u32) -> u32 {
        self.parent[of as usize].load(Ordering::Relaxed)
    }

    fn root(&self, mut of: u32) -> u32 {
        loop {
            let above = self.above(of);
            if above == of {
                return of;
            }
            let next = self.above(above);
            if next != above {
                // A step is shortened; where somebody else was here, theirs is as good.
                let (order, other) = (Ordering::Relaxed, Ordering::Relaxed);
                _ = self.parent[of as usize].compare_exchange_weak(above, next, order, other);
            }
            of = next;
        }
    }

    /// Joins the components of two members.
    pub(super) fn union(&self, a: u32, b: u32) {
        loop {
            let (a, b) = (self.root(a), self.root(b));
            if a == b {
                return;
            }
            // The larger root gets the smaller one as its parent, if it is still a root.
            let (small, large) = (a.min(b), a.max(b));
            let (order, other) = (Ordering::Relaxed, Ordering::Relaxed);
            if self.parent[large as usize].compare_exchange(large, small, order, other).is_ok() {
                return;
            }
        }
    }

    /// The root of every member.
    pub(super) fn into_roots(self) -> Vec<u32> {
        let parent = self.parent.into_iter().map(AtomicU32::into_inner).collect();
        Components { parent }.into_roots()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Threads that join at once come to what one comes to alone.
        #[test]
        fn threads_meet(pairs in prop::collection::vec((0u32..500, 0u32..500), 0..2000)) {
            let mut alone = Components::new(500);
            pairs.iter().for_each(|(a, b)| alone.union(*a, *b));
            let together = Meeting::new(500);
            std::thread::scope(|scope| {
                for part in pairs.chunks(pairs.len().div_ceil(4).max(1)) {
                    scope.spawn(|| part.iter().for_each(|(a, b)| together.union(*a, *b)));
                }
            });
            prop_assert_eq!(together.into_roots(), alone.into_roots());
        }
    }
}
