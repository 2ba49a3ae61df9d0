//! What an event says of its run beside the name: made by the wrapper, bounded by the server, read by reports.

use serde::{Deserialize, Serialize};

use super::Event;
use crate::digest::Digest;
use crate::limits::MAX_JOB_BYTES;

/// Characters of a digest that stand for the rest of a long name.
const CUT_DIGEST_CHARS: usize = 12;

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

impl Event {
    /// What the job is called in all runs, in at most [`MAX_JOB_BYTES`]: with its repository and workflow, where
    /// they are known, so that it is not mistaken for a job of the same name elsewhere.
    pub fn lasting_job(&self) -> String {
        let name = match &self.about {
            Some(RunAbout { repository, workflow, .. })
                if !repository.is_empty() || !workflow.is_empty() =>
            {
                format!("{repository}/{workflow}/{}", self.job)
            }
            _ => self.job.clone(),
        };
        bounded_name(&name, MAX_JOB_BYTES)
    }
}

/// A text from elsewhere that may be shown on a terminal or in a log: no control character is left.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A name in at most so many bytes. One that is longer ends with a digest of the whole, so that two long names
/// stay apart.
pub fn bounded_name(name: &str, max_bytes: usize) -> String {
    if name.len() <= max_bytes {
        return name.to_owned();
    }
    let digest = Digest::of(name.as_bytes()).to_string();
    let end = format!("~{}", &digest[..CUT_DIGEST_CHARS]);
    let cut = name.floor_char_boundary(max_bytes.saturating_sub(end.len()));
    format!("{}{end}", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_apart() {
        assert_eq!(bounded_name("build", 5), "build");
        let names = ["ä".repeat(200), "ä".repeat(201), "ä".repeat(200) + "b"];
        let cut = names.map(|name| bounded_name(&name, 100));
        assert!(cut.iter().all(|name| name.len() <= 100 && name.starts_with("ää")), "{cut:?}");
        assert!(cut[0] != cut[1] && cut[1] != cut[2] && cut[0] != cut[2], "{cut:?}");
    }
}
