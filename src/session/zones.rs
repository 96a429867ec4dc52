//! The time zone of what is being planned.

use std::sync::{Mutex, PoisonError};

/// The session's zone, and above it those of the views that are being planned: a view keeps the zone it was made in.
#[derive(Debug)]
pub(super) struct Zones {
    stack: Mutex<Vec<String>>,
}

impl Zones {
    pub(super) fn new(session: String) -> Self {
        Self { stack: Mutex::new(vec![session]) }
    }

    pub(super) fn current(&self) -> String {
        let stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        stack.last().cloned().unwrap_or_else(|| "UTC".to_owned())
    }

    pub(super) fn enter(&self, zone: String) {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner).push(zone);
    }

    pub(super) fn leave(&self) {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner).pop();
    }
}
