//! Housekeeping of a server: clustered tables with many fresh rows are compacted while it runs, rows of erased people are
//! taken out of files, and what no version needs any more is deleted.

use std::sync::Arc;
use std::time::Duration;

use super::compact::{clustered, compact, small_files};
use crate::error::Result;
use crate::session::Engine;
use crate::store::{Lease, Relation};

/// A table is compacted when one of so many rows is fresh,
const FRESH_SHARE: u64 = 10;

/// or when it has more fresh files than this, or, not clustered, more small ones.
const FRESH_FILES_MAX: usize = 8;

/// What is out of use is looked for this often: everything is listed for it.
const VACUUM_EVERY: Duration = Duration::from_secs(3600);

/// Looks every so often until the future is dropped. What fails is logged and tried again the next time.
/// `holder` is who holds the lease.
pub async fn keep_tidy(engine: Arc<Engine>, every: Duration, holder: String) {
    let mut vacuumed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(every).await;
        let wants_vacuum = vacuumed.elapsed() >= VACUUM_EVERY;
        if let Err(error) = Box::pin(tidy(&engine, &holder, every, wants_vacuum)).await {
            tracing::warn!(code = error.sqlstate(), %error, "housekeeping failed");
        }
        if wants_vacuum {
            vacuumed = tokio::time::Instant::now();
        }
    }
}

async fn tidy(
    engine: &Arc<Engine>,
    holder: &str,
    every: Duration,
    wants_vacuum: bool,
) -> Result<()> {
    let warehouse = engine.warehouse();
    // Longer than the pause, so that a server that lives keeps it.
    let us = i64::try_from(every.as_micros()).unwrap_or(i64::MAX / 4).saturating_mul(3);
    let lease = warehouse.take_lease(holder, us).await?;
    if lease.is_none() {
        return Ok(());
    }
    // A long compaction must not lose the lease to somebody who thinks that nobody is there.
    let keep_lease = async {
        loop {
            tokio::time::sleep(every).await;
            match warehouse.take_lease(holder, us).await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(code = error.sqlstate(), %error, "the lease could not be kept")
                }
            }
        }
    };
    tokio::select! {
        done = Box::pin(tidy_under(engine, lease, wants_vacuum)) => done,
        () = keep_lease => Ok(()),
    }
}

async fn tidy_under(engine: &Arc<Engine>, lease: Option<Lease>, wants_vacuum: bool) -> Result<()> {
    let warehouse = engine.warehouse();
    let purged = warehouse.purge(lease).await?;
    if purged.rows > 0 {
        tracing::info!(
            rows = purged.rows,
            tables = purged.tables,
            "rows of erased records taken out"
        );
    }
    compact_all(engine, lease).await?;
    if wants_vacuum {
        let done = warehouse.vacuum(lease, engine.config().storage.keep()).await?;
        tracing::info!(
            files = done.files,
            bytes = done.bytes,
            log_entries = done.log_entries,
            folders = done.folders,
            held_back = done.is_held_back,
            "vacuumed"
        );
    }
    Ok(())
}

async fn compact_all(engine: &Arc<Engine>, lease: Option<Lease>) -> Result<()> {
    let warehouse = engine.warehouse();
    let newest = warehouse.newest().await?;
    let session = engine.session(super::UPKEEP_USER);
    for (name, relation) in &newest.relations {
        let Relation::Table(def) = relation else { continue };
        let snapshot = warehouse.snapshot(def).await?;
        let (files, rows) = clustered(&session, &newest, &snapshot).await?.loose();
        let is_tidy = files <= FRESH_FILES_MAX && rows * FRESH_SHARE <= snapshot.rows();
        if is_tidy && small_files(&snapshot).count() <= FRESH_FILES_MAX {
            continue;
        }
        if let Some(done) = compact(&session, lease, name).await? {
            tracing::info!(
                table = %name,
                rows = done.rows,
                files_before = done.files_before,
                files_after = done.files_after,
                "compacted"
            );
        }
    }
    Ok(())
}
