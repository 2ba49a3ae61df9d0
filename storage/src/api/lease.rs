//! Types of the HTTP API for leases: who compiles a unit while others wait for it.
//!
//! A lease is advisory. Who waits and is told of a result looks it up as any other, and compiles when it does
//! not hold; who gets no answer compiles.

use serde::{Deserialize, Serialize};

use crate::key::{LeaseKey, ResultKey};
use crate::record::UnitName;

/// `POST /v1/leases`: may I compile this, or does somebody already? The answer comes as soon as there is
/// something to say, at the latest after `wait_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseRequest {
    /// What is about to be compiled.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub key: LeaseKey,
    /// Who asks: the same in each question of one wrapper about one unit, another one for everybody else
    /// ([`super::Event::id`]).
    pub asker: String,
    /// What people call the unit.
    pub unit: UnitName,
    /// The run of the asker.
    pub run: String,
    /// Its job.
    pub job: String,
    /// How long the answer may take while somebody else has the lease, milliseconds; bounded by the server too.
    /// With 0 it comes at once.
    pub wait_ms: u64,
    /// Results that were looked up and do not hold for the asker: it is not told of them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub known: Vec<ResultKey>,
    /// The lease is taken over from whoever has had it for so long or longer, milliseconds: it takes too long. That counts
    /// as a failure of the other. Who never gets a lease takes none over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_ms: Option<u64>,
}

/// What is to be done about a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LeaseResponse {
    /// The asker compiles it and others wait for it. It says that it lives by `POST /v1/leases/{id}/hold`, the
    /// first time within [`crate::limits::LEASE_GRACE`].
    Granted {
        /// Names the lease.
        id: String,
    },
    /// Somebody compiles it, and did not end in the time that was given.
    Held {
        /// Who.
        holder: Holder,
    },
    /// A result of it was stored a short time ago.
    Stored {
        /// Which.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        result: ResultKey,
    },
    /// Waiting for it is of no use: it fails, its results cannot be stored, or too many wait. The asker compiles
    /// it, and nobody waits for that.
    Free,
}

/// Who has a lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Holder {
    /// Its run.
    pub run: String,
    /// Its job.
    pub job: String,
    /// How long it has it, milliseconds.
    pub age_ms: u64,
    /// How long it was not heard of, milliseconds: 0 while a question of it is open.
    pub silent_ms: u64,
    /// Processor time that its compile has taken, milliseconds, as it said last.
    pub cpu_ms: u64,
}

/// `POST /v1/leases/{id}/hold`: the holder lives. The answer comes after [`crate::limits::LEASE_HOLD`], and the
/// next question is to follow at once; a connection that ends before it ends the lease. Status 404 says that
/// the lease is another's by now, or nobody's: the compile goes on, and its result is stored as any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldRequest {
    /// Processor time that the compile has taken so far, milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
}

/// `POST /v1/leases/{id}/release`: how it ended. To be sent while the last question that holds the lease is still open:
/// a connection that ends before is a loss. Status 404 as for [`HoldRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ReleaseRequest {
    /// Its result was stored: those who wait look it up.
    Stored {
        /// The result.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        result: ResultKey,
    },
    /// The compile failed. One of those who wait takes over; after
    /// [`crate::limits::MAX_LEASE_FAILURES`] nobody waits for this unit.
    Failed,
    /// It was compiled, and its result cannot be stored: nobody waits for this unit.
    NotStored,
    /// It was not compiled. One of those who wait takes over.
    Abandoned,
}

/// `GET /v1/leases`: who compiles what at this moment, oldest first; at most
/// [`crate::limits::MAX_SHOWN_LEASES`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasesResponse {
    /// The leases.
    pub leases: Vec<Lease>,
}

/// A unit that is being compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// The unit.
    pub unit: UnitName,
    /// Who compiles it.
    pub holder: Holder,
    /// The runs and jobs that wait for it.
    pub waiting: Vec<Waiter>,
}

/// A job that waits for a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Waiter {
    /// Its run.
    pub run: String,
    /// Its job.
    pub job: String,
}
