//! What a resolution works in: memory, the disk where identifiers go that do not fit into it, and threads for what takes long.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use clientele_udfs::identity::clusters::Clusters;
use clientele_udfs::identity::collect::Collector;
use clientele_udfs::identity::graph::Graph;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::MemoryReservation;

use crate::error::{Error, Kind, Result};

/// Memory of the engine's, and its folder of temporary files.
#[derive(Debug)]
pub struct Workspace {
    memory: MemoryReservation,
    disk: Arc<DiskManager>,
}

impl Deref for Workspace {
    type Target = MemoryReservation;

    fn deref(&self) -> &MemoryReservation {
        &self.memory
    }
}

impl Workspace {
    /// Within a reservation and a folder.
    pub fn new(memory: MemoryReservation, disk: Arc<DiskManager>) -> Self {
        Self { memory, disk }
    }

    /// Reserves what a collector of identifiers holds, beside other bytes. When there is not so much they go to disk, unless they are
    /// so few that it is others that take the memory.
    ///
    /// # Errors
    /// 53200 when there is no memory for the rest, 53100 when the disk is full.
    pub fn fit(&self, identifiers: &mut impl Identifiers, others: usize) -> Result<()> {
        const LEAST_BYTES: usize = 1 << 20;
        let Err(refused) = self.memory.try_resize(others + identifiers.bytes()) else {
            return Ok(());
        };
        let graph = identifiers.graph();
        let bytes = graph.bytes_to_spill();
        if bytes < LEAST_BYTES {
            return Err(refused.into());
        }
        let free = self.disk.max_temp_directory_size().saturating_sub(self.disk.used_disk_space());
        if graph.bytes_on_disk() + bytes as u64 > free {
            return Err(Error::new(
                Kind::DiskFull,
                "identifiers do not fit into memory, nor into what temporary files may take",
            )
            .hint("raise memory.limit_mb or memory.spill_limit_mb"));
        }
        graph.spill(|| self.file())?;
        tracing::debug!(bytes, "identifiers went to disk");
        Ok(self.memory.try_resize(others + identifiers.bytes())?)
    }

    /// A file that nobody else can open, and that is gone when it is closed.
    fn file(&self) -> io::Result<File> {
        let made = self.disk.create_tmp_file("identifiers").map_err(io::Error::other)?;
        let path = made.path().ok_or_else(|| io::Error::other("temporary files have no path"))?;
        // With what was made goes its name.
        std::fs::OpenOptions::new().read(true).write(true).open(path)
    }
}

/// What holds identifiers, in a graph that can put them on disk.
pub trait Identifiers {
    /// Bytes that are held, those of the graph included.
    fn bytes(&self) -> usize;

    /// The graph.
    fn graph(&mut self) -> &mut Graph;
}

impl Identifiers for Graph {
    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn graph(&mut self) -> &mut Graph {
        self
    }
}

impl Identifiers for Collector {
    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn graph(&mut self) -> &mut Graph {
        self.graph_mut()
    }
}

impl Identifiers for Clusters {
    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn graph(&mut self) -> &mut Graph {
        self.graph_mut()
    }
}

/// Runs what computes for long on a thread for that.
pub async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::internal("identity resolution stopped unexpectedly"))
}
