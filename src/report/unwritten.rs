//! What a process knows of its runs and could not write down: a disk that is full takes no note of that either.

use std::collections::HashMap;

use super::progress::Progress;
use super::runs::Run;
use crate::error::Result;
use crate::store::{Generation, Name};

/// Most runs that are kept until they can be written down; the oldest give way.
const RUNS_MAX: usize = 1_000;

/// How far a report had come by what is published, and how far it has come really.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    published: Progress,
    real: Progress,
}

/// What is still to be written down.
#[derive(Debug, Clone, Default)]
pub struct Unwritten {
    steps: HashMap<Name, Step>,
    runs: Vec<Run>,
    /// Code and text of the error for which the clock cannot be looked at.
    standstill: Option<(String, String)>,
}

impl Unwritten {
    /// How far `name` has come. Once something newer was published about it, that counts.
    pub fn progress(&self, state: &Generation, name: &Name) -> Result<Progress> {
        let published = Progress::of(state, name)?;
        Ok(match self.steps.get(name) {
            Some(step) if step.published == published => step.real.clone(),
            _ => published,
        })
    }

    /// Keeps how far `name` has come really.
    pub fn keep_progress(&mut self, name: &Name, published: Progress, real: Progress) {
        self.steps.insert(name.clone(), Step { published, real });
    }

    /// Keeps a run that has ended.
    pub fn keep_run(&mut self, run: Run) {
        if self.runs.len() >= RUNS_MAX {
            self.runs.remove(0);
        }
        self.runs.push(run);
    }

    /// Whether everything is written down.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.runs.is_empty()
    }

    /// The reports that have come further than is published.
    pub fn reports(&self) -> impl Iterator<Item = &Name> {
        self.steps.keys()
    }

    /// The runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The progress of reports in `written` stands in the warehouse now.
    pub fn drop_progress(&mut self, written: &Self) {
        self.steps.retain(|name, step| written.steps.get(name) != Some(step));
    }

    /// The runs in `written` stand in the warehouse now.
    pub fn drop_runs(&mut self, written: &Self) {
        self.runs.retain(|run| !written.runs.iter().any(|other| other.id == run.id));
    }

    /// The clock cannot be looked at for this error, or can be again.
    pub fn stands_still(&mut self, error: Option<(String, String)>) {
        self.standstill = error;
    }

    /// Code and text of the error for which nothing runs by the clock.
    pub fn standstill(&self) -> Option<&(String, String)> {
        self.standstill.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn what_could_not_be_written_counts_until_something_newer_is() {
        let (mut state, name) = (Generation::default(), Name::new("public", "r"));
        let failed = Progress { outcome: Outcome::Failed, failures: 1, ..Progress::default() };
        let mut unwritten = Unwritten::default();
        unwritten.keep_progress(&name, Progress::default(), failed.clone());
        assert_eq!(unwritten.progress(&state, &name).unwrap(), failed);
        let written = unwritten.clone();
        let worse = Progress { failures: 2, ..failed.clone() };
        unwritten.keep_progress(&name, Progress::default(), worse.clone());
        unwritten.drop_progress(&written);
        assert_eq!(unwritten.progress(&state, &name).unwrap(), worse);

        let newer = Progress { outcome: Outcome::Succeeded, ..Progress::default() };
        let crate::store::Change::Set(note) = newer.noted().unwrap() else { panic!("a note") };
        state.relations.insert(Progress::note(&name), note);
        assert_eq!(unwritten.progress(&state, &name).unwrap(), newer);
    }
}
