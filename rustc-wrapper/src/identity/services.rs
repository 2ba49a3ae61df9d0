//! The table of CI services: by which variables each says what run and job this is. Pure. Used by
//! [`super::Identity`]; `docs/jobs.md` explains it.
//!
//! A pattern is text with names of variables in braces. It holds where all of them are set; of several
//! patterns the first that holds counts.

use crate::env::Env;

/// How a service tells runs and jobs.
#[derive(Debug)]
pub(super) struct Service {
    /// What it is called in events.
    pub(super) name: &'static str,
    /// The variable that is `true` in its jobs.
    pub(super) sign: &'static str,
    /// A variable with which something else passes itself off as this service.
    pub(super) unless: Option<&'static str>,
    /// What all jobs of a run have in common and no other run has.
    pub(super) run: &'static str,
    /// The number of the attempt, and what it is for the first. None: the service does not say, or gives
    /// another attempt another run.
    pub(super) attempt: Option<(&'static str, u32)>,
    /// The job.
    pub(super) job: &'static [&'static str],
    /// The number of one of several jobs of a name, from 0, and how many there are.
    pub(super) parallel: Option<(&'static str, &'static str)>,
    /// What else may tell jobs of a name apart and is the same in all runs.
    pub(super) machine: &'static [&'static str],
    /// The repository.
    pub(super) repository: &'static [&'static str],
    /// The workflow or pipeline.
    pub(super) workflow: &'static [&'static str],
    /// The branch or tag.
    pub(super) branch: &'static [&'static str],
    /// The branch that a pull request is for.
    pub(super) base: &'static [&'static str],
    /// The commit.
    pub(super) commit: &'static [&'static str],
    /// Where people look at the run.
    pub(super) url: &'static [&'static str],
}

const GITHUB: Service = Service {
    name: "github",
    sign: "GITHUB_ACTIONS",
    // `act` runs workflows on the machine of somebody, each as run 1.
    unless: Some("ACT"),
    run: "{GITHUB_RUN_ID}",
    attempt: Some(("GITHUB_RUN_ATTEMPT", 1)),
    job: &["{GITHUB_JOB}"],
    parallel: None,
    machine: &["{RUNNER_OS} {RUNNER_ARCH}", "{RUNNER_OS}"],
    repository: &["{GITHUB_REPOSITORY}"],
    workflow: &["{GITHUB_WORKFLOW}"],
    branch: &["{GITHUB_HEAD_REF}", "{GITHUB_REF_NAME}"],
    base: &["{GITHUB_BASE_REF}"],
    commit: &["{GITHUB_SHA}"],
    url: &["{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}"],
};

/// Their pages of runs go by the number of the run in its repository.
const RUN_BY_NUMBER: &[&str] =
    &["{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_NUMBER}"];

/// All of them, those first that set the signs of others as well.
pub(super) const SERVICES: &[Service] = &[
    Service {
        name: "forgejo",
        sign: "FORGEJO_ACTIONS",
        unless: None,
        url: RUN_BY_NUMBER,
        ..GITHUB
    },
    Service { name: "gitea", sign: "GITEA_ACTIONS", unless: None, url: RUN_BY_NUMBER, ..GITHUB },
    GITHUB,
    Service {
        name: "gitlab",
        sign: "GITLAB_CI",
        unless: None,
        run: "{CI_PIPELINE_ID}",
        attempt: None,
        // With the number or the values of a parallel job.
        job: &["{CI_JOB_NAME}"],
        parallel: None,
        machine: &[],
        repository: &["{CI_PROJECT_PATH}"],
        workflow: &["{CI_PIPELINE_NAME}"],
        branch: &["{CI_MERGE_REQUEST_SOURCE_BRANCH_NAME}", "{CI_COMMIT_REF_NAME}"],
        base: &["{CI_MERGE_REQUEST_TARGET_BRANCH_NAME}"],
        commit: &["{CI_COMMIT_SHA}"],
        url: &["{CI_PIPELINE_URL}"],
    },
    Service {
        name: "buildkite",
        sign: "BUILDKITE",
        unless: None,
        run: "{BUILDKITE_BUILD_ID}",
        attempt: Some(("BUILDKITE_RETRY_COUNT", 0)),
        // Steps of a matrix share the key; the label has the values.
        job: &["{BUILDKITE_LABEL}", "{BUILDKITE_STEP_KEY}"],
        parallel: Some(("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT")),
        machine: &[],
        // The address of the repository may hold a password.
        repository: &["{BUILDKITE_ORGANIZATION_SLUG}/{BUILDKITE_PIPELINE_SLUG}"],
        workflow: &["{BUILDKITE_PIPELINE_SLUG}"],
        branch: &["{BUILDKITE_BRANCH}"],
        base: &["{BUILDKITE_PULL_REQUEST_BASE_BRANCH}"],
        commit: &["{BUILDKITE_COMMIT}"],
        url: &["{BUILDKITE_BUILD_URL}"],
    },
    Service {
        name: "circleci",
        sign: "CIRCLECI",
        unless: None,
        run: "{CIRCLE_WORKFLOW_ID}",
        attempt: None,
        job: &["{CIRCLE_JOB}"],
        parallel: Some(("CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL")),
        machine: &[],
        repository: &["{CIRCLE_PROJECT_USERNAME}/{CIRCLE_PROJECT_REPONAME}", "{CIRCLE_PROJECT_ID}"],
        workflow: &[],
        branch: &["{CIRCLE_BRANCH}", "{CIRCLE_TAG}"],
        base: &[],
        commit: &["{CIRCLE_SHA1}"],
        url: &["{CIRCLE_BUILD_URL}"],
    },
];

impl Service {
    /// The service that runs this, and what it calls the run, without the attempt.
    pub(super) fn find(env: &Env) -> Option<(&'static Self, String)> {
        let here = |service: &&Self| {
            env.text(service.sign) == Some("true")
                && service.unless.is_none_or(|name| env.text(name).is_none())
        };
        let service = SERVICES.iter().find(here)?;
        Some((service, fill(env, service.run)?))
    }

    /// Which attempt this is, from 1.
    pub(super) fn attempt_in(&self, env: &Env) -> u32 {
        let told = |(name, first): (&str, u32)| {
            let number: u32 = env.text(name)?.parse().ok()?;
            number.checked_sub(first)?.checked_add(1)
        };
        self.attempt.and_then(told).unwrap_or(1)
    }

    /// What the job is called, without what may tell it from others of the name.
    pub(super) fn job_in(&self, env: &Env) -> Option<String> {
        let job = first(env, self.job)?;
        let number = |name| env.text(name)?.parse::<u32>().ok();
        let part = self.parallel.and_then(|(index, total)| Some((number(index)?, number(total)?)));
        Some(match part {
            Some((index, total)) if index < total && total > 1 => {
                format!("{job} {}/{total}", index + 1)
            }
            _ => job,
        })
    }
}

/// The first pattern that holds, filled in.
pub(super) fn first(env: &Env, patterns: &[&str]) -> Option<String> {
    patterns.iter().find_map(|pattern| fill(env, pattern))
}

/// A pattern with the values of its variables; none when one is not set.
fn fill(env: &Env, pattern: &str) -> Option<String> {
    let mut filled = String::new();
    let mut rest = pattern;
    while let Some((text, from)) = rest.split_once('{') {
        let (name, after) = from.split_once('}')?;
        filled.push_str(text);
        filled.push_str(env.text(name)?);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}
