//! Which records are joined.

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
