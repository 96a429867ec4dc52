//! Who is connected: for cancel requests, for draining, and for the metrics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) connections_total: AtomicU64,
    pub(crate) refused_total: AtomicU64,
    pub(crate) logins_failed_total: AtomicU64,
    pub(crate) statements_total: AtomicU64,
    pub(crate) statements_failed_total: AtomicU64,
    pub(crate) statements_cancelled_total: AtomicU64,
    pub(crate) rows_sent_total: AtomicU64,
    pub(crate) statement_us_total: AtomicU64,
}

/// Every open connection.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Mutex<HashMap<i32, Arc<Entry>>>,
    running: AtomicUsize,
    metrics: Metrics,
}

/// One connection, as others see it.
#[derive(Debug)]
pub(crate) struct Entry {
    secret: i32,
    /// Ends the statement that runs now; a new one for each.
    statement: Mutex<CancellationToken>,
    /// Ends the connection.
    pub(crate) stop: CancellationToken,
    is_busy: std::sync::atomic::AtomicBool,
}

/// A place in the registry; it is given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    pub(crate) pid: i32,
    pub(crate) secret: i32,
    pub(crate) entry: Arc<Entry>,
}

impl Registry {
    /// Takes a place for a connection; `None` when `most` are taken.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= most {
            return None;
        }
        let (mut pid, mut secret) = (0, 0);
        while pid <= 0 || entries.contains_key(&pid) {
            (pid, secret) = random_pair();
        }
        let entry = Arc::new(Entry {
            secret,
            statement: Mutex::default(),
            stop: CancellationToken::new(),
            is_busy: false.into(),
        });
        entries.insert(pid, Arc::clone(&entry));
        Some(Place { registry: Arc::clone(self), pid, secret, entry })
    }

    /// Ends the running statement of a connection whose key is known; a wrong key does nothing and says nothing.
    pub(crate) fn cancel(&self, pid: i32, secret: i32) {
        let entry = self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).cloned();
        if let Some(entry) = entry.filter(|entry| entry.secret == secret) {
            entry.statement.lock().unwrap_or_else(PoisonError::into_inner).cancel();
        }
    }

    /// Statements that run now.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn stop_idle(&self) {
        for entry in self.entries.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if !entry.is_busy.load(Ordering::Relaxed) {
                entry.stop.cancel();
            }
        }
    }

    pub(crate) fn stop_all(&self) {
        for entry in self.entries.lock().unwrap_or_else(PoisonError::into_inner).values() {
            entry.stop.cancel();
        }
    }
}

impl Place {
    /// Marks the connection as busy with a statement and gives the token that cancels it.
    pub(crate) fn begin_statement(&self) -> Busy<'_> {
        let token = CancellationToken::new();
        *self.entry.statement.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        self.entry.is_busy.store(true, Ordering::Relaxed);
        self.registry.running.fetch_add(1, Ordering::Relaxed);
        Busy { place: self, token }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.registry.metrics
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid);
    }
}

/// A statement that runs.
pub(crate) struct Busy<'a> {
    place: &'a Place,
    pub(crate) token: CancellationToken,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.place.entry.is_busy.store(false, Ordering::Relaxed);
        self.place.registry.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn random_pair() -> (i32, i32) {
    let mut bytes = [0u8; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // Without random bytes there is no secret, and a cancel key that can be guessed is worse than none.
        return (i32::from(std::process::id() as u16) + 1, 0);
    }
    let [a, b, c, d, e, f, g, h] = bytes;
    ((i32::from_le_bytes([a, b, c, d]) & 0x3fff_ffff) + 1, i32::from_le_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_cancels_and_places_are_given_back() {
        let registry = Arc::new(Registry::default());
        let place = registry.enter(1).unwrap();
        assert!(registry.enter(1).is_none());
        let busy = place.begin_statement();
        registry.cancel(place.pid, place.secret.wrapping_add(1));
        assert!(!busy.token.is_cancelled());
        registry.cancel(place.pid, place.secret);
        assert!(busy.token.is_cancelled());
        assert_eq!(registry.running(), 1);
        drop(busy);
        drop(place);
        assert_eq!((registry.running(), registry.connections()), (0, 0));
    }
}
