//! [`EventBatch`]: what became of some units of a job, on its way to a place that keeps such for reports.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::api::{Event, NearestUnit};

/// Events of one job of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBatch {
    /// The run.
    pub run: String,
    /// The job.
    pub job: String,
    /// The events; what was sent before counts once.
    pub events: Vec<Event>,
    /// What the keys of units were made of that were compiled, for those who do not have their results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<NearestUnit>,
}

/// What a place does with events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepsEvents {
    /// Nothing.
    No,
    /// It keeps them, and brings those of a run to whoever asks.
    AsObjects,
    /// It makes reports of them itself.
    AsServer,
}

/// Batches that a place has of a run.
#[derive(Debug, Clone, Default)]
pub struct EventsThere {
    /// What was not known, by the name it has there.
    pub batches: Vec<(String, EventBatch)>,
}

/// Names of batches that are known already.
pub type KnownBatches = BTreeSet<String>;

/// A page about runs, as a Kiln server answers it.
pub type Page = Bytes;
