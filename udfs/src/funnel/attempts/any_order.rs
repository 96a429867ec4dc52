//! Steps in any order: the stretch of a window's length in which most of them came.

use std::ops::{Range, RangeInclusive};

use super::{Attempt, AttemptRules, Timeline};

/// The best stretch that begins at the places of `begins`, until `limit`, and the place of its last row.
///
/// Each row is one step at most. The ends of stretches go forward with their beginnings; only how many rows there are of each
/// kind decides how many steps came, so the cost is that of the rows, times the steps where a row may be one of several.
pub(super) fn best(
    timeline: &Timeline,
    begins: Range<usize>,
    limit: i64,
    rules: &AttemptRules,
) -> Option<(Attempt, usize)> {
    let first = begins.start;
    let begins = |place: &usize| begins.contains(place) && rules.is_step(&timeline.row(*place));
    let mut kinds = Kinds::default();
    let mut begin = first;
    let mut best: Option<(usize, usize, usize)> = None;
    for end in first..timeline.len() {
        let at = timeline.at(end);
        let is_over = |place: &usize| at.saturating_sub(timeline.at(*place)) > rules.chain.window;
        while begin < end && (is_over(&begin) || !begins(&begin)) {
            kinds.remove(steps_of(timeline, begin, rules));
            begin += 1;
        }
        if timeline.at(begin) > limit {
            break;
        }
        if !kinds.add(steps_of(timeline, end, rules)) || !begins(&begin) {
            continue;
        }
        let level = kinds.level(rules.chain.steps);
        if best.is_none_or(|(deepest, ..)| level > deepest) {
            best = Some((level, begin, end));
            if level == rules.chain.steps {
                break;
            }
        }
    }
    let (level, mut begin, end) = best?;
    // Of the stretches that end there the one that began last.
    for later in (begin + 1..=end).filter(|place| begins(place) && timeline.at(*place) <= limit) {
        if taken(timeline, later..=end, rules).len() < level {
            break;
        }
        begin = later;
    }
    let steps = taken(timeline, begin..=end, rules).into_iter().map(Some).collect();
    Some((Attempt { level: level as u32, steps }, end))
}

/// Whether a row before `until` excludes: between the steps that it is said of, as they came.
pub(super) fn is_struck_out(
    timeline: &Timeline,
    attempt: &Attempt,
    until: usize,
    rules: &AttemptRules,
) -> bool {
    (0..until).map(|place| timeline.row(place)).any(|row| {
        let done = attempt.steps.iter().flatten().filter(|(at, _)| *at <= row.at).count() as u32;
        rules.excluding(&row).any(|condition| {
            let (from, to) = rules.exclusions[condition];
            (from..to).contains(&done)
        })
    })
}

fn steps_of<'a>(timeline: &'a Timeline, place: usize, rules: &AttemptRules) -> &'a [u32] {
    let conditions = timeline.row(place).conditions;
    let to = conditions.partition_point(|c| *c as usize <= rules.chain.steps);
    if conditions[0] == 0 { &[] } else { &conditions[..to] }
}

/// The rows that are steps, each when it made one more, in order.
fn taken(
    timeline: &Timeline,
    rows: RangeInclusive<usize>,
    rules: &AttemptRules,
) -> Vec<(i64, u32)> {
    let mut kinds = Kinds::default();
    let mut level = 0;
    let mut taken = Vec::new();
    for place in rows {
        if kinds.add(steps_of(timeline, place, rules)) {
            let with = kinds.level(rules.chain.steps);
            if with > level {
                let row = timeline.row(place);
                taken.push((row.at, row.number));
                level = with;
            }
        }
    }
    taken
}

/// How many rows there are of each kind: rows are of one kind that satisfy the same conditions.
#[derive(Debug, Default)]
struct Kinds<'a> {
    kinds: Vec<(&'a [u32], usize)>,
}

impl<'a> Kinds<'a> {
    /// Whether a row of these steps was added: not one of none.
    fn add(&mut self, steps: &'a [u32]) -> bool {
        match self.kinds.iter_mut().find(|(kind, _)| *kind == steps) {
            _ if steps.is_empty() => return false,
            Some((_, count)) => *count += 1,
            None => self.kinds.push((steps, 1)),
        }
        true
    }

    fn remove(&mut self, steps: &[u32]) {
        if let Some((_, count)) = self.kinds.iter_mut().find(|(kind, _)| *kind == steps) {
            *count -= 1;
        }
    }

    /// How many steps can each have a row of its own.
    fn level(&self, steps: usize) -> usize {
        if self.kinds.iter().all(|(kind, _)| kind.len() == 1) {
            return self.kinds.iter().filter(|(_, count)| *count > 0).count();
        }
        // Which kind each step has a row of; a step takes a row, where necessary by giving another step another one.
        let mut of_step: Vec<Option<usize>> = vec![None; steps + 1];
        let mut used = vec![0; self.kinds.len()];
        let mut level = 0;
        for step in 1..=steps as u32 {
            let mut seen = vec![false; self.kinds.len()];
            level += usize::from(self.place(step, &mut of_step, &mut used, &mut seen));
        }
        level
    }

    fn place(
        &self,
        step: u32,
        of_step: &mut [Option<usize>],
        used: &mut [usize],
        seen: &mut [bool],
    ) -> bool {
        for (number, (kind, count)) in self.kinds.iter().enumerate() {
            if seen[number] || !kind.contains(&step) {
                continue;
            }
            seen[number] = true;
            if used[number] < *count {
                used[number] += 1;
                of_step[step as usize] = Some(number);
                return true;
            }
            let holders: Vec<u32> = (1..of_step.len() as u32)
                .filter(|s| of_step[*s as usize] == Some(number))
                .collect();
            for holder in holders {
                if self.place(holder, of_step, used, seen) {
                    of_step[step as usize] = Some(number);
                    return true;
                }
            }
        }
        false
    }
}
