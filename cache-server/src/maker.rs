//! Who had a result stored: what the server knows of them ([`Made`]), beside what they say of themselves ([`Said`]).
//!
//! What the server knows stands in the stored object of a record, behind what the client sent ([`sealed`], [`read`]): so
//! an index that is made anew has it again, and it costs no object of its own. A record has no field of that name, and
//! what a client sends is written anew from its fields, so no client gets anything in there. It is no part of the
//! record: answers to lookups, what is sent to the place behind the server, and keys are without it.
//!
//! Who publishes a result that is there already is noted beside it, the first of them: see [`again`].

use kiln_storage::api::{bounded_name, plain};
use kiln_storage::limits::{MAX_JOB_BYTES, MAX_RUN_BYTES};
use kiln_storage::record::Producer;
use kiln_storage::{ObjectName, Record, ResultKey};
use serde::{Deserialize, Serialize};

use crate::limits::MAX_SAID_TOOLCHAIN_BYTES;

pub(crate) mod again;

/// Who somebody is, as the server knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum By {
    /// Nobody wrote it down: the result is of an earlier version.
    #[default]
    Unknown,
    /// The server's own user, by its socket.
    User {
        /// The user.
        uid: u32,
    },
    /// Anybody over TCP, where nobody is asked for a name.
    Anybody,
    /// Who has a token that an administrator made.
    Token {
        /// What the token is called.
        name: String,
    },
    /// A job of a CI service.
    Job(Box<Job>),
    /// It came from the place behind the server.
    Behind {
        /// The place.
        place: String,
    },
}

/// A job, by the verified claims of its token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub(crate) struct Job {
    /// Who vouches for the rest.
    pub issuer: String,
    /// The number of the repository.
    pub repository_id: String,
    /// Its name at that time.
    pub repository: String,
    /// The run.
    pub run_id: String,
    /// How often it was started.
    pub run_attempt: String,
    /// The workflow, with its ref.
    pub workflow_ref: String,
    /// The workflow that the job is from, with its ref.
    pub job_workflow_ref: String,
    /// The ref that it ran for.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The commit.
    pub sha: String,
    /// What started it.
    pub event_name: String,
    /// The number of who started it.
    pub actor_id: String,
}

/// Who had a result stored, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Who.
    pub by: By,
    /// When, by the server's clock, milliseconds since 1970.
    pub at_ms: u64,
}

/// What who had a result stored says of itself. Nobody has verified it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Said {
    /// The run.
    pub run: String,
    /// The job in it.
    pub job: String,
    /// The digest of the toolchain, short form.
    pub toolchain: String,
}

/// All that is known of who had a result stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// What the server knows.
    pub made: Made,
    /// What they say.
    pub said: Said,
}

impl Origin {
    /// That of a record of which nothing but what it says is known.
    pub(crate) fn unknown(record: &Record, at_ms: u64) -> Self {
        Self { made: Made { by: By::Unknown, at_ms }, said: Said::from(&record.producer) }
    }
}

impl By {
    /// What they are called, in the log and for [`crate::revoke`].
    pub(crate) fn name(&self) -> String {
        let text = match self {
            Self::Unknown => "unknown".to_owned(),
            Self::User { uid } => format!("user {uid}"),
            Self::Anybody => "anybody".to_owned(),
            Self::Token { name } => format!("token {name}"),
            Self::Behind { place } => format!("behind {place}"),
            Self::Job(job) => {
                let Job { repository, reference, event_name, run_id, run_attempt, .. } = &**job;
                format!("job {repository} {event_name} {reference} run {run_id}.{run_attempt}")
            }
        };
        plain(&text)
    }
}

impl From<&Producer> for Said {
    fn from(producer: &Producer) -> Self {
        Self {
            run: bounded_name(&producer.run, MAX_RUN_BYTES),
            job: bounded_name(&producer.job, MAX_JOB_BYTES),
            toolchain: bounded_name(&producer.toolchain, MAX_SAID_TOOLCHAIN_BYTES),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    made: Option<T>,
}

/// The text of a record with who had it stored behind its own fields.
///
/// # Errors
/// It cannot be encoded.
pub(crate) fn sealed(record: &Record, made: &Made) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec(record)?;
    let seal = serde_json::to_vec(&Sealed { made: Some(made) })?;
    // The fields of the one object go on in the other; a record has fields.
    text.pop();
    text.push(b',');
    text.extend_from_slice(seal.get(1..).unwrap_or_default());
    Ok(text)
}

/// Who had a record stored, by the text of its object; nobody where it is not told, or not so that it can be read.
pub(crate) fn read(text: &[u8]) -> Option<Made> {
    serde_json::from_slice::<Sealed<Made>>(text).ok()?.made
}

/// The object that says who else made a result of a scope.
pub(crate) fn again_name(scope: &str, key: &ResultKey) -> Option<ObjectName> {
    format!("{}{scope}/{key}", again::PREFIX).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::record;

    fn made() -> Made {
        let job = Job { run_id: "7".into(), reference: "refs/heads/main".into(), ..Job::default() };
        Made { by: By::Job(Box::new(job)), at_ms: 5 }
    }

    #[test]
    fn a_record_is_the_same_with_and_without_who_made_it() {
        let record = record("u");
        let text = sealed(&record, &made()).unwrap();
        let plain = serde_json::to_vec(&record).unwrap();
        assert!(text.starts_with(&plain[..plain.len() - 1]));
        assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
        assert_eq!(read(&text), Some(made()));
        assert_eq!(read(&plain), None);
    }

    /// Whoever writes the field into what it sends gets it neither into the record nor into what is stored.
    #[test]
    fn what_a_client_says_is_not_taken_for_what_the_server_knows() {
        let forged = sealed(&record("u"), &Made { by: By::Anybody, at_ms: 1 }).unwrap();
        let sent: Record = serde_json::from_slice(&forged).unwrap();
        assert_eq!(read(&sealed(&sent, &made()).unwrap()), Some(made()));
        let twice = [&forged[..forged.len() - 1], b",\"made\":null}"].concat();
        assert_eq!(read(&twice), None, "what is there twice is not believed");
        assert_eq!(read(br#"{"made":{"by":{"kind":"newer"},"at_ms":1}}"#), None);
    }

    #[test]
    fn everybody_has_a_name() {
        assert_eq!(By::User { uid: 7 }.name(), "user 7");
        assert_eq!(By::Token { name: "a\nb".into() }.name(), "token a?b");
        assert_eq!(made().by.name(), "job   refs/heads/main run 7.");
    }
}
