//! Memory that is left for sorts to make room.

use std::fmt;

use datafusion::error::Result;
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// The engine's memory, a quarter of which only merges may take that write a sort's rows out.
///
/// Sorts share all that a pool has. When it is used up they merge what they hold and spill; but the merge needs the keys of
/// the rows once more in comparable form, for texts more than the engine has set aside, and a sort of a table larger than
/// the memory failed where it should have spilled.
///
/// Whoever can spill has a fair part of the pool, however many do not use theirs: a query of a dozen operators spilled while nine tenths of
/// the memory lay idle. So a part may be exceeded as long as all together hold no more than a quarter of the whole: what the others may
/// still ask for is there then, with the headroom.
#[derive(Debug)]
pub(super) struct Headroom {
    inner: FairSpillPool,
    limit: usize,
}

/// Fair parts are kept to once one in so many bytes is held.
const IDLE_SHARE: usize = 4;

impl Headroom {
    /// `limit` bytes in all.
    pub(super) fn new(limit: usize) -> Self {
        Self { inner: FairSpillPool::new(limit / 4 * 3), limit }
    }
}

impl MemoryPool for Headroom {
    fn name(&self) -> &str {
        "headroom"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let refused = match self.inner.try_grow(reservation, additional) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let consumer = reservation.consumer();
        let most = match consumer.name().starts_with("ExternalSorterMerge") {
            true => self.limit,
            false if consumer.can_spill() => self.limit / IDLE_SHARE,
            false => return Err(refused),
        };
        if self.inner.reserved().saturating_add(additional) > most {
            return Err(refused);
        }
        self.inner.grow(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_fair_part_is_exceeded_while_the_rest_is_idle() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Headroom::new(400));
        let consumer = |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let [one, other, _third, _fourth] = ["a", "b", "c", "d"].map(consumer);
        // A fair part is 75.
        assert!(one.try_grow(100).is_ok());
        assert!(one.try_grow(1).is_err());
        assert!(other.try_grow(75).is_ok());
        assert!(other.try_grow(1).is_err());
    }

    #[test]
    fn merges_have_room_when_sorts_have_taken_theirs() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Headroom::new(400));
        let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&pool);
        assert!(sort.try_grow(300).is_ok());
        assert!(sort.try_grow(1).is_err());
        let other = MemoryConsumer::new("HashJoin").register(&pool);
        assert!(other.try_grow(1).is_err());
        let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        assert!(merge.try_grow(100).is_ok());
        assert!(merge.try_grow(1).is_err());
        merge.free();
        sort.free();
        assert_eq!(pool.reserved(), 0);
    }
}
