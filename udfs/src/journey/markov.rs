//! What a channel is worth by its absence: an absorbing Markov chain of journeys, solved exactly.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// Most states of a chain; its cost is their cube.
pub(crate) const STATES_MAX: usize = 1000;

/// How often journeys went which way. A state is the touches that are remembered; the empty one is the start.
#[derive(Debug, Default)]
pub(crate) struct Journeys {
    pub(crate) steps: BTreeMap<(Vec<u32>, u32), f64>,
    pub(crate) converted: BTreeMap<Vec<u32>, f64>,
    pub(crate) lost: BTreeMap<Vec<u32>, f64>,
    /// How many touches a state remembers.
    pub(crate) order: usize,
}

impl Journeys {
    /// Journeys of channels, each with whether it converted.
    pub(crate) fn counted(journeys: &[(Vec<u32>, bool)], order: usize) -> Self {
        let mut counted = Self { order, ..Self::default() };
        for (channels, is_converted) in journeys {
            let remembered = |until: usize| channels[until.saturating_sub(order)..until].to_vec();
            for (i, next) in channels.iter().enumerate() {
                *counted.steps.entry((remembered(i), *next)).or_default() += 1.0;
            }
            let ends = if *is_converted { &mut counted.converted } else { &mut counted.lost };
            *ends.entry(remembered(channels.len())).or_default() += 1.0;
        }
        counted
    }

    /// By channel, the share of conversions that would be lost without it: 1 - P(conversion without it) / P(conversion).
    ///
    /// The error is the number of states, if there are too many. Without any conversion the answer is empty.
    pub(crate) fn removal_effects(&self) -> Result<BTreeMap<u32, f64>, usize> {
        let from = self.steps.keys().map(|(from, _)| from);
        let all = from.chain(self.converted.keys()).chain(self.lost.keys());
        let states: Vec<&Vec<u32>> = all.collect::<BTreeSet<_>>().into_iter().collect();
        let n = states.len();
        if n > STATES_MAX {
            return Err(n);
        }
        let number = |state: &Vec<u32>| states.binary_search(&state).ok();
        let mut totals = vec![0.0; n];
        let mut moves = vec![0.0; n * n];
        let mut converts = vec![0.0; n];
        for ((from, next), count) in &self.steps {
            let mut to = from.clone();
            to.push(*next);
            let to = to.split_off(to.len().saturating_sub(self.order));
            let (Some(from), Some(to)) = (number(from), number(&to)) else { continue };
            moves[from * n + to] += count;
            totals[from] += count;
        }
        for (state, count) in &self.converted {
            let Some(state) = number(state) else { continue };
            converts[state] += count;
            totals[state] += count;
        }
        for (state, count) in &self.lost {
            let Some(state) = number(state) else { continue };
            totals[state] += count;
        }
        // Visits to each state from each other one: (I - Q)^-1.
        let mut system = vec![0.0; n * n];
        for from in 0..n {
            for to in 0..n {
                let share = moves[from * n + to] / totals[from];
                system[from * n + to] = f64::from(u8::from(from == to)) - share;
            }
            converts[from] /= totals[from];
        }
        let Some(visits) = inverse(system, n) else { return Ok(BTreeMap::new()) };
        let chance =
            |from: usize| (0..n).map(|to| visits[from * n + to] * converts[to]).sum::<f64>();
        let (Some(start), chances) = (number(&vec![]), (0..n).map(chance).collect::<Vec<f64>>())
        else {
            return Ok(BTreeMap::new());
        };
        if chances[start] <= 0.0 {
            return Ok(BTreeMap::new());
        }
        let mut of_channel: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (i, state) in states.iter().enumerate() {
            if let Some(channel) = state.last() {
                of_channel.entry(*channel).or_default().push(i);
            }
        }
        let effect = |of: &[usize]| {
            // The state in which a journey meets the channel first: visits to it are those of journeys that met it somewhere.
            let m = of.len();
            let visits_among = |(a, b): (&usize, &usize)| visits[a * n + b];
            let pairs = of.iter().flat_map(|a| of.iter().map(move |b| (a, b)));
            let among = pairs.map(visits_among).collect();
            let Some(among) = inverse(among, m) else { return 0.0 };
            let first = |to: usize| {
                (0..m).map(|via| visits[start * n + of[via]] * among[via * m + to]).sum::<f64>()
            };
            let lost: f64 = (0..m).map(|to| first(to) * chances[of[to]]).sum();
            (lost / chances[start]).clamp(0.0, 1.0)
        };
        Ok(of_channel.into_iter().map(|(channel, of)| (channel, effect(&of))).collect())
    }
}

/// The inverse of a matrix of `n` rows, by elimination with the greatest pivot; `None` when there is none.
fn inverse(mut left: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    let mut right = vec![0.0; n * n];
    (0..n).for_each(|i| right[i * n + i] = 1.0);
    for column in 0..n {
        let size = |row: &usize| left[row * n + column].abs();
        let pivot = (column..n).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        if size(&pivot) < 1e-14 {
            return None;
        }
        for matrix in [&mut left, &mut right] {
            let (a, b) = (column * n, pivot * n);
            (0..n).for_each(|i| matrix.swap(a + i, b + i));
        }
        let by = 1.0 / left[column * n + column];
        for matrix in [&mut left, &mut right] {
            matrix[column * n..(column + 1) * n].iter_mut().for_each(|cell| *cell *= by);
        }
        let pivot_row = |matrix: &[f64]| matrix[column * n..(column + 1) * n].to_vec();
        let (pivot_left, pivot_right) = (pivot_row(&left), pivot_row(&right));
        for row in (0..n).filter(|row| *row != column) {
            let by = left[row * n + column];
            if by != 0.0 {
                let cells = |pivot: &[f64], matrix: &mut [f64]| {
                    let row = &mut matrix[row * n..(row + 1) * n];
                    row.iter_mut().zip(pivot).for_each(|(cell, pivot)| *cell -= by * pivot);
                };
                cells(&pivot_left, &mut left);
                cells(&pivot_right, &mut right);
            }
        }
    }
    Some(right)
}
