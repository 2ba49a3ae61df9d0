//! What an event says of its run beside the name: made by the wrapper, bounded by the server, read by reports.

use serde::{Deserialize, Serialize};

/// What a CI service says of a run and a job. Texts have at most [`crate::limits::MAX_ABOUT_BYTES`] and are empty
/// where the service does not say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct RunAbout {
    /// `github`, `gitlab`, `buildkite`, `circleci`, `forgejo` or `gitea`; empty for the machine of somebody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// As `owner/name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repository: String,
    /// What runs of one kind have in common: the name of the workflow or the pipeline.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workflow: String,
    /// The branch or tag that the run is for; the head branch of a pull request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub branch: String,
    /// The branch that a pull request is to be merged into; empty for other runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// The commit that is built.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// 1 for the first.
    pub attempt: u32,
    /// Where people look at the run: `http` or `https`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
}

impl Default for RunAbout {
    fn default() -> Self {
        Self {
            service: String::new(),
            repository: String::new(),
            workflow: String::new(),
            branch: String::new(),
            base: String::new(),
            commit: String::new(),
            attempt: 1,
            url: String::new(),
        }
    }
}

impl RunAbout {
    /// All its texts.
    pub fn texts(&self) -> [&String; 7] {
        let Self { service, repository, workflow, branch, base, commit, attempt: _, url } = self;
        [service, repository, workflow, branch, base, commit, url]
    }
}
