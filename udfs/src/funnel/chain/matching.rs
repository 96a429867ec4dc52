//! Rows of one instant, each used for one step.

/// Which steps in a row the rows can be, each one of them.
///
/// An augmenting path gives a step a row, where necessary by giving other steps other rows (Kuhn's algorithm). All levels
/// together cost as many paths as there are steps.
pub(super) struct Matching<'a> {
    /// The steps that each row can be.
    rows: &'a [Vec<u32>],
    /// The rows that can be each step.
    of_step: Vec<Vec<usize>>,
    /// The step that each row is now.
    is: Vec<Option<usize>>,
    /// The last step that has a row.
    to: usize,
}

impl<'a> Matching<'a> {
    pub(super) fn new(rows: &'a [Vec<u32>], steps: usize) -> Self {
        let mut of_step = vec![Vec::new(); steps + 1];
        for (row, steps) in rows.iter().enumerate() {
            steps.iter().for_each(|step| of_step[*step as usize].push(row));
        }
        Self { rows, of_step, is: vec![None; rows.len()], to: 0 }
    }

    /// The deepest step to which a chain can go on that has come to `level`. Levels are asked for in order.
    pub(super) fn deepest_from(&mut self, level: usize) -> usize {
        // The rows of steps that are not needed any more are free.
        for row in &mut self.is {
            *row = row.filter(|step| *step > level);
        }
        self.to = self.to.max(level);
        while self.to + 1 < self.of_step.len() {
            let mut tried = vec![false; self.rows.len()];
            if !self.give_row(self.to + 1, &mut tried) {
                break;
            }
            self.to += 1;
        }
        self.to
    }

    fn give_row(&mut self, step: usize, tried: &mut [bool]) -> bool {
        for at in 0..self.of_step[step].len() {
            let row = self.of_step[step][at];
            if std::mem::replace(&mut tried[row], true) {
                continue;
            }
            let is_free = match self.is[row] {
                None => true,
                Some(other) => self.give_row(other, tried),
            };
            if is_free {
                self.is[row] = Some(step);
                return true;
            }
        }
        false
    }
}
