//! How a statement that is no longer wanted lets go of computations that never pause.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;

tokio::task_local! {
    static CURRENT: Stop;
}

/// Whether a statement is to stop. Copies are one.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    is_set: Arc<AtomicBool>,
    meter: Option<Arc<Meter>>,
}

/// Memory that work of one kind may hold together.
#[derive(Debug)]
pub struct Share {
    limit: usize,
    held: AtomicUsize,
}

impl Share {
    /// `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }
}

/// What one piece of work holds of its kind's share, and the most that it ever held.
#[derive(Debug)]
pub struct Meter {
    share: Arc<Share>,
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl Meter {
    /// Nothing yet of `share`.
    pub fn new(share: &Arc<Share>) -> Arc<Self> {
        let (share, held, peak) = (Arc::clone(share), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { share, held, peak })
    }

    /// Most bytes that were held at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) {
        self.share.held.fetch_add(bytes, Ordering::Relaxed);
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(held, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.share.held.fetch_sub(bytes, Ordering::Relaxed);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.share.held.load(Ordering::Relaxed).saturating_add(bytes) <= self.share.limit
    }
}

impl Stop {
    /// The one of the statement that this task runs; one of its own outside of any.
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// `work` as the task of a statement that stops with this.
    pub fn over<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), work)
    }

    /// Asks for the end.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// The same, for work whose memory is measured.
    pub fn metered(&self, meter: &Arc<Meter>) -> Self {
        Self { is_set: Arc::clone(&self.is_set), meter: Some(Arc::clone(meter)) }
    }

    /// `pool` as far as the statement goes.
    pub(super) fn memory(&self, pool: &Arc<dyn MemoryPool>) -> Arc<dyn MemoryPool> {
        Arc::new(Stoppable { inner: Arc::clone(pool), stop: self.clone() })
    }

    /// `context` whose memory ends with the statement.
    pub(super) fn bounds(&self, context: TaskContext) -> Arc<TaskContext> {
        let shared = context.runtime_env();
        let memory_pool = self.memory(&shared.memory_pool);
        let own = RuntimeEnv { memory_pool, ..RuntimeEnv::clone(&shared) };
        Arc::new(context.with_runtime(Arc::new(own)))
    }
}

/// What is thrown through the frames of a computation that nobody waits for. It reaches the task and no further.
struct Stopped;

/// The engine's memory, for one statement.
///
/// Some operators compute for a minute within one poll, so that their task cannot be aborted: a sort that has to make
/// room merges everything it holds and writes it out in one go. But they ask for memory at every step. A statement that
/// is to stop unwinds there, silently and past the operator's own handling of "out of memory", which would be to spill
/// and go on; what it held is given back on the way.
#[derive(Debug)]
struct Stoppable {
    inner: Arc<dyn MemoryPool>,
    stop: Stop,
}

impl Stoppable {
    fn check(&self) {
        if self.stop.is_set() && !std::thread::panicking() {
            // Not a panic: no hook runs and nothing is printed.
            std::panic::resume_unwind(Box::new(Stopped));
        }
    }
}

impl MemoryPool for Stoppable {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        if let Some(meter) = &self.stop.meter {
            meter.take(additional);
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
        if let Some(meter) = &self.stop.meter {
            meter.give_back(shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.check();
        let Some(meter) = &self.stop.meter else {
            return self.inner.try_grow(reservation, additional);
        };
        if !meter.has_room(additional) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} needs {additional} bytes more than the share of reports has",
                reservation.consumer().name()
            )));
        }
        self.inner.try_grow(reservation, additional)?;
        meter.take(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

impl fmt::Display for Stoppable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    #[tokio::test]
    async fn work_of_a_kind_has_its_share() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let share = Share::new(40);
        let (one, other) = (Meter::new(&share), Meter::new(&share));
        let held = MemoryConsumer::new("a").register(&Stop::default().metered(&one).memory(&pool));
        let more =
            MemoryConsumer::new("b").register(&Stop::default().metered(&other).memory(&pool));
        assert!(held.try_grow(30).is_ok());
        assert!(more.try_grow(20).is_err());
        assert!(more.try_grow(10).is_ok());
        held.free();
        assert!(more.try_grow(30).is_ok());
        assert_eq!((one.peak(), other.peak()), (30, 40));
        more.free();
        assert_eq!((pool.reserved(), share.held.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn memory_ends_with_the_statement() {
        let stop = Stop::default();
        let runtime = RuntimeEnv {
            memory_pool: Arc::new(GreedyMemoryPool::new(100)),
            ..RuntimeEnv::default()
        };
        let context = TaskContext::default().with_runtime(Arc::new(runtime));
        let bounded = stop.over(async { Stop::current().bounds(context) }).await;
        let work = tokio::spawn(async move {
            let held = MemoryConsumer::new("sort").register(bounded.memory_pool());
            assert!(held.try_grow(60).is_ok());
            assert!(held.try_grow(60).is_err());
            stop.set();
            let _ = held.try_grow(1);
            unreachable!("the computation went on");
        });
        let end = work.await.map_err(tokio::task::JoinError::into_panic);
        assert!(end.is_err_and(|thrown| thrown.is::<Stopped>()));
        assert!(!Stop::current().is_set());
    }
}
