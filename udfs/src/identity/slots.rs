//! Numbers that are looked into all over.

use memmap2::MmapMut;

/// Numbers that begin as 0. Many are kept on large pages of memory, where the system has them: on small ones a look also misses
/// the processor's table of pages, which takes as long again.
#[derive(Debug)]
pub(super) enum Slots {
    Few(Vec<u64>),
    Many(MmapMut),
}

impl Slots {
    /// So many.
    pub(super) fn zeroed(len: usize) -> Self {
        /// From here on there are several large pages.
        const MANY_BYTES: usize = 8 << 20;
        let bytes = len * size_of::<u64>();
        let large = (bytes >= MANY_BYTES).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        let Some(large) = large else { return Self::Few(vec![0; len]) };
        // Where it is refused, small pages do.
        #[cfg(target_os = "linux")]
        let _ = large.advise(memmap2::Advice::HugePage);
        Self::Many(large)
    }

    pub(super) fn all(&self) -> &[u64] {
        match self {
            Self::Few(slots) => slots,
            Self::Many(bytes) => bytemuck::cast_slice(bytes),
        }
    }

    pub(super) fn all_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Few(slots) => slots,
            Self::Many(bytes) => bytemuck::cast_slice_mut(bytes),
        }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.all())
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Clone for Slots {
    fn clone(&self) -> Self {
        let mut same = Self::zeroed(self.all().len());
        same.all_mut().copy_from_slice(self.all());
        same
    }
}
