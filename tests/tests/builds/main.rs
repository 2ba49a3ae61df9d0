//! Whole builds, and what is said of them.

mod diagnostics;
mod elsewhere;
mod exact;
mod explain;
mod explain_variables;
mod freshness;
mod habits;
mod hits;
mod jobs;
mod must_hit;
mod pass_through;
mod probes;
mod quarantine;
mod real_projects;
mod reports;
mod verify;
mod watch;
