//! Touches as rows again: each with all steps whose conditions it satisfies.

use super::chain::Touch;

/// The rows of an instant: the steps of each, in order.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) steps: Vec<Vec<u32>>,
}

impl Rows {
    /// The rows of touches of one instant, in an order that does not depend on how rows were numbered.
    pub(super) fn read(&mut self, instant: &[Touch]) {
        let mut touches: Vec<(u32, u32)> = instant.iter().map(|t| (t.row, t.step)).collect();
        touches.sort_unstable();
        let of_rows = touches.chunk_by(|a, b| a.0 == b.0);
        self.steps = of_rows.map(|row| row.iter().map(|(_, step)| *step).collect()).collect();
        self.steps.sort_unstable();
    }

    /// Of rows that satisfy the same conditions no more than `most` can matter.
    pub(super) fn drop_needless(&mut self, most: usize) {
        let (mut same, mut last) = (0, Vec::new());
        self.steps.retain(|steps| {
            if *steps == last {
                same += 1;
            } else {
                same = 1;
                last.clone_from(steps);
            }
            same <= most
        });
    }
}
