//! A customer's events cut into visits, and the path of each: plain functions of a sorted slice.

use super::events::Event;

#[cfg(test)]
mod tests;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathRules {
    /// An event that comes later than this after the one before it begins another visit.
    pub(crate) gap: i64,
    /// Most nodes of a path.
    pub(crate) steps: usize,
    /// Whether an event that repeats the one before it is a node of its own.
    pub(crate) keeps_repeats: bool,
    /// The name where paths begin, if it was given; `Some(None)` is a name that no event has.
    pub(crate) start: Option<Option<u32>>,
    /// The name where paths end.
    pub(crate) end: Option<Option<u32>>,
}

/// The nodes of the path of each visit, in order; visits without one are left out. `events` are sorted.
///
/// A path begins at the first `start` of its visit and ends at the first `end` after that; of a path with an end alone the last
/// nodes are kept, of others the first.
pub(crate) fn paths<'a>(
    events: &'a [Event],
    rules: &'a PathRules,
) -> impl Iterator<Item = Vec<Event>> + 'a {
    let visits = events.chunk_by(|a, b| b.at.saturating_sub(a.at) <= rules.gap);
    visits.filter_map(|visit| path(visit, rules))
}

fn path(visit: &[Event], rules: &PathRules) -> Option<Vec<Event>> {
    let place = |from: &[Event], name: Option<u32>| from.iter().position(|e| Some(e.name) == name);
    let visit = match rules.start {
        Some(start) => &visit[place(visit, start)?..],
        None => visit,
    };
    let visit = match rules.end {
        Some(end) => &visit[..=place(visit, end)?],
        None => visit,
    };
    let is_node =
        |i: &usize| *i == 0 || rules.keeps_repeats || visit[*i].name != visit[*i - 1].name;
    let nodes = (0..visit.len()).filter(is_node).map(|i| visit[i]);
    if rules.end.is_some() && rules.start.is_none() {
        let mut nodes: Vec<Event> = nodes.collect();
        let before = nodes.len().saturating_sub(rules.steps);
        nodes.drain(..before);
        return Some(nodes);
    }
    Some(nodes.take(rules.steps).collect())
}
