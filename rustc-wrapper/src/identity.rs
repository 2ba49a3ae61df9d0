//! [`Identity`]: who asks: the run, the job in it, and the cargo process ("build").
//!
//! Names come from settings, else from the variables of a CI service (`services`), else from the place. They
//! are the same in every unit of a job, and the job's name is the same in every run, so that runs can be
//! compared and a job finds what it used last time. Others chose them: they are bounded, and nothing in them
//! moves a terminal. `docs/jobs.md` tells people. Used by [`crate::engine`].

mod process;
mod services;
#[cfg(test)]
mod tests;

use std::path::Path;

use kiln_storage::api::{RunAbout, bounded_name};
use kiln_storage::limits::{MAX_ABOUT_BYTES, MAX_JOB_BYTES, MAX_RUN_BYTES};

use crate::config::Config;
use crate::env::Env;
use crate::say;
use process::Here;
use services::{Service, first};

/// Run, job and build of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The run, another one for each attempt.
    pub run: String,
    /// The job, with the values of its matrix.
    pub job: String,
    /// The cargo process: number and start, so that it is unique on a machine.
    pub build: String,
    /// What the CI service says of the run; none without one.
    pub about: Option<RunAbout>,
}

impl Identity {
    /// Who asks, from the environment and the process tree.
    pub fn find(env: &Env, config: &Config, cwd: &Path) -> Self {
        Self::of(env, config, Here::find(cwd))
    }

    /// Who asks.
    fn of(env: &Env, config: &Config, here: Here) -> Self {
        let service = Service::find(env);
        let about = service.as_ref().map(|(service, _)| about(service, env));
        let attempt = about.as_ref().map_or(1, |about| about.attempt);
        let told = |name: &Option<String>| name.as_deref().map(clean).filter(|n| !n.is_empty());
        let run = told(&config.run).unwrap_or_else(|| match &service {
            Some((_, run)) if attempt > 1 => clean(&format!("{run}.{attempt}")),
            Some((_, run)) => clean(run),
            None => clean(&format!("{}-{}", here.host, here.build)),
        });
        let job = told(&config.job).unwrap_or_else(|| {
            let (job, machine) = match &service {
                Some((service, _)) => (service.job_in(env), first(env, service.machine)),
                None => (None, None),
            };
            match (job, machine) {
                (Some(job), Some(machine)) if config.matrix.is_none() => {
                    format!("{job} ({machine})")
                }
                (Some(job), _) => job,
                (None, _) => here.place.file_name().unwrap_or_default().to_string_lossy().into(),
            }
        });
        let job = match &config.matrix {
            Some(matrix) if !matrix.is_empty() => format!("{job} ({matrix})"),
            _ => job,
        };
        let job = Some(clean(&job)).filter(|job| !job.is_empty());
        Self {
            run: bounded_name(&run, MAX_RUN_BYTES),
            job: bounded_name(job.as_deref().unwrap_or("local"), MAX_JOB_BYTES),
            build: here.build,
            about,
        }
    }
}

/// What a service says of its run.
fn about(service: &Service, env: &Env) -> RunAbout {
    let text = |patterns| {
        let mut text = first(env, patterns).map(|text| clean(&text)).unwrap_or_default();
        text.truncate(text.floor_char_boundary(MAX_ABOUT_BYTES));
        text
    };
    RunAbout {
        service: service.name.to_owned(),
        repository: text(service.repository),
        workflow: text(service.workflow),
        branch: text(service.branch),
        base: text(service.base),
        commit: text(service.commit),
        attempt: service.attempt_in(env),
        // A part of an address leads nowhere.
        url: first(env, service.url).filter(|url| is_link(url)).unwrap_or_default(),
    }
}

/// Whether people may be led to an address.
fn is_link(url: &str) -> bool {
    let scheme = url.starts_with("https://") || url.starts_with("http://");
    scheme && url.len() <= MAX_ABOUT_BYTES && !url.contains(|c| say::is_control(c) || c == ' ')
}

/// A text on one line that shows as it is.
fn clean(text: &str) -> String {
    let shown = text.replace(say::is_control, " ");
    shown.trim().to_owned()
}
