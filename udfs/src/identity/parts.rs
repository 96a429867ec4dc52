//! Work that is cut into parts, one for each processor.

use std::ops::Range;
use std::panic::resume_unwind;

/// Threads that work at once.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What `work` makes of each part of `0..len`, in order; all at once.
pub(super) fn in_parts<T: Send>(len: usize, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let each = len.div_ceil(threads()).max(1);
    let part = |from: usize| from..len.min(from + each);
    std::thread::scope(|scope| {
        let work = &work;
        let tasks: Vec<_> =
            (0..len).step_by(each).map(|from| scope.spawn(move || work(part(from)))).collect();
        let ended = tasks.into_iter().map(|task| task.join());
        ended.map(|made| made.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}
