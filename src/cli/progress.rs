//! A bar with rows a second and the time left; nothing when stderr is not a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::ingest::Progress;

/// The bar of one load.
pub(super) struct Bar {
    bar: ProgressBar,
    started: std::sync::Mutex<std::time::Instant>,
}

impl Bar {
    pub(super) fn new() -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style =
            ProgressStyle::with_template("{prefix:24} {bar:30} {percent:>3}%  {msg}  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, started: std::time::Instant::now().into() }
    }
}

impl Progress for Bar {
    fn begin(&self, source: &str, bytes: u64) {
        self.bar.reset();
        self.bar.set_length(bytes);
        self.bar.set_prefix(source.to_owned());
        *self.started.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            std::time::Instant::now();
    }

    fn advance(&self, bytes_read: u64, rows: u64) {
        let seconds = self
            .started
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .elapsed()
            .as_secs_f64();
        self.bar.set_position(bytes_read);
        self.bar
            .set_message(format!("{rows} rows, {:.0} rows/s", rows as f64 / seconds.max(0.001)));
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn note(&self, text: &str) {
        eprintln!("note: {text}");
    }
}
