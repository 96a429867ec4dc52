//! Reports that are being computed in this process: one run of each at a time, seen and stopped by anybody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{NaiveDate, Utc};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::stop::{Meter, Share};
use crate::error::Result;
use crate::report::{Progress, Running, Unwritten};
use crate::store::{Generation, Name};

/// The runs of a process.
#[derive(Debug)]
pub struct Runs {
    open: Mutex<HashMap<Name, Arc<Open>>>,
    turns: Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>,
    share: Arc<Share>,
    /// Those that were begun and nobody waits for.
    expected: Arc<AtomicUsize>,
    /// Every statement looks at it, and hardly any changes it.
    unwritten: Mutex<Arc<Unwritten>>,
}

/// A run that nobody waits for.
#[derive(Debug)]
pub struct Expected(Arc<AtomicUsize>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A run, as others see it.
#[derive(Debug)]
struct Open {
    started_us: i64,
    as_of: Mutex<NaiveDate>,
    periods: Mutex<Option<(u64, u64)>>,
    rows: AtomicU64,
    cancel: CancellationToken,
}

/// A place among the runs; it is given back when dropped.
#[derive(Debug)]
pub struct Place {
    runs: Arc<Runs>,
    report: Name,
    open: Arc<Open>,
    ended: CancellationToken,
    _turn: OwnedMutexGuard<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runs {
    /// None yet; together they may hold `bytes`.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let (open, turns, unwritten) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self {
            open,
            turns,
            share: Share::new(bytes),
            expected: Arc::default(),
            unwritten,
        })
    }

    /// Notes that a run is begun which nobody waits for, until what is given back is dropped.
    pub fn expect(&self) -> Expected {
        self.expected.fetch_add(1, Ordering::Relaxed);
        Expected(Arc::clone(&self.expected))
    }

    /// Whether there are such.
    pub fn are_expected(&self) -> bool {
        self.expected.load(Ordering::Relaxed) > 0
    }

    /// Waits until no other run of `report` is open, and opens one.
    pub async fn enter(self: &Arc<Self>, report: &Name, as_of: NaiveDate) -> Place {
        let turn = Arc::clone(locked(&self.turns).entry(report.clone()).or_default());
        let turn = turn.lock_owned().await;
        let open = Arc::new(Open {
            started_us: Utc::now().timestamp_micros(),
            as_of: Mutex::new(as_of),
            periods: Mutex::default(),
            rows: AtomicU64::new(0),
            cancel: CancellationToken::new(),
        });
        locked(&self.open).insert(report.clone(), Arc::clone(&open));
        let ended = CancellationToken::new();
        Place { runs: Arc::clone(self), report: report.clone(), open, ended, _turn: turn }
    }

    /// Whether a run of `report` is open.
    pub fn is_running(&self, report: &Name) -> bool {
        locked(&self.open).contains_key(report)
    }

    /// Stops the run of `report`; `false` when there is none.
    pub fn cancel(&self, report: &Name) -> bool {
        let open = locked(&self.open).get(report).cloned();
        if let Some(open) = &open {
            open.cancel.cancel();
        }
        open.is_some()
    }

    /// Those that are open.
    pub fn running(&self) -> Vec<Running> {
        let all = locked(&self.open);
        let seen = all.iter().map(|(report, open)| Running {
            report: report.clone(),
            started_us: open.started_us,
            as_of: *locked(&open.as_of),
            rows: open.rows.load(Ordering::Relaxed),
            periods: *locked(&open.periods),
        });
        seen.collect()
    }

    /// How far `report` has come, as it stands in `state` or as only this process knows.
    pub fn progress(&self, state: &Generation, report: &Name) -> Result<Progress> {
        locked(&self.unwritten).progress(state, report)
    }

    /// What could not be written down yet.
    pub fn unwritten(&self) -> Arc<Unwritten> {
        Arc::clone(&locked(&self.unwritten))
    }

    /// Changes what is still to be written down.
    pub fn with_unwritten(&self, change: impl FnOnce(&mut Unwritten)) {
        change(Arc::make_mut(&mut locked(&self.unwritten)));
    }

    /// A meter of the memory that one of them holds.
    pub fn meter(&self) -> Arc<Meter> {
        Meter::new(&self.share)
    }
}

impl Place {
    /// It computes another day now, of a backfill with `done` of `all` periods behind it.
    pub fn goes_on(&self, as_of: NaiveDate, done: u64, all: u64) {
        *locked(&self.open.as_of) = as_of;
        *locked(&self.open.periods) = Some((done, all));
        self.open.rows.store(0, Ordering::Relaxed);
    }

    /// It has written more rows.
    pub fn add_rows(&self, rows: usize) {
        self.open.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Comes when somebody stops the run.
    pub fn cancelled(&self) -> CancellationToken {
        self.open.cancel.clone()
    }

    /// Stops the run when `wanted` is over too: who asked for it has gone.
    pub fn is_wanted_by(&self, wanted: &CancellationToken) {
        let (run, gone) = (self.open.cancel.clone(), wanted.clone());
        let ended = self.ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = gone.cancelled() => run.cancel(),
                () = ended.cancelled() => {}
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ended.cancel();
        locked(&self.runs.open).remove(&self.report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_run_of_a_report_at_a_time() {
        let runs = Runs::new(100);
        let (name, day) = (Name::new("public", "r"), NaiveDate::default());
        let first = runs.enter(&name, day).await;
        first.add_rows(3);
        assert_eq!(runs.running()[0].rows, 3);
        let second =
            tokio::time::timeout(std::time::Duration::from_millis(20), runs.enter(&name, day));
        assert!(second.await.is_err());
        assert!(runs.cancel(&name) && first.cancelled().is_cancelled());
        drop(first);
        assert!(!runs.is_running(&name) && !runs.cancel(&name));
        assert!(!runs.enter(&name, day).await.cancelled().is_cancelled());
    }
}
