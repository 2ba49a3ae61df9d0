//! [`Record`]: one stored result together with the input set it answers.
//!
//! The input set says *what* a unit read ([`Member`]s, with roots as tokens); the values say what
//! was found there. Unit key, members and values make the [`ResultKey`] ([`result_key`]). The
//! server moves records without knowing what a member means; the wrapper evaluates them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::encode::Encoder;
use crate::key::{ResultKey, UnitKey};
use crate::limits;
use crate::output;

pub use crate::output::{Content, Output};

/// Version of the record format. A record of another version is a miss.
pub const RECORD_VERSION: u32 = 2;

/// A path in which a leading root directory is a token, e.g. `<workspace>/src/lib.rs`; paths
/// outside of every root are absolute. Always UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenPath(pub String);

/// What one member of an input set names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// The content of a file; that it is absent or a directory are values too.
    File(TokenPath),
    /// The names in a directory.
    Listing(TokenPath),
    /// Names and contents below a directory.
    Tree(TokenPath, TreeFilter),
    /// An environment variable; unset and empty are different values.
    Env(String, EnvForm),
    /// What a path is and who may do what with it: kind and permissions.
    Mode(TokenPath),
    /// The program that a bare name finds through `PATH`: its place and its content.
    Program(String),
    /// The nearest file of one of these names in a directory or above it, by content.
    Upward(TokenPath, Vec<String>),
    /// The real place of a root, by its token: the result holds only there.
    Root(String),
    /// The width that diagnostics are wrapped at.
    DiagnosticWidth,
    /// Where a symbolic link leads, as it says; that it is none is a value too.
    Link(TokenPath),
    /// The place that a path is in the end, links followed: the result holds only there.
    Place(TokenPath),
    /// The place that a path is in the end, with roots as tokens.
    Resolved(TokenPath),
    /// The processor of the machine: maker, model and features.
    Processor,
    /// Many variables at a time, with their names.
    Environment(Variables),
}

/// Which variables a [`Member::Environment`] covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Variables {
    /// All of them, as they are, for what reads them all.
    All,
    /// Those that do not belong to a session or to one run of CI, with roots as tokens, for what may
    /// read any of them.
    Lasting,
}

/// Which files of a directory a [`Member::Tree`] covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TreeFilter {
    /// Every file, recursively, except below `target` directories and version control.
    Package,
    /// Every file, recursively.
    All,
    /// Native libraries and objects directly in the directory.
    Libraries,
    /// Every file directly in the directory.
    Files,
    /// Rust libraries directly in the directory.
    Crates,
}

/// How the value of a variable enters the result key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EnvForm {
    /// As it is.
    Raw,
    /// With roots as tokens: the value is only used to find files, which are members themselves.
    Tokens,
}

/// What producing the result cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cost {
    /// Wall time of the tool, milliseconds.
    pub wall_ms: u64,
    /// User and system time of the tool and its children, milliseconds.
    pub cpu_ms: u64,
}

/// Who made a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Producer {
    /// The run.
    pub run: String,
    /// The job in it.
    pub job: String,
    /// Digest of the toolchain, short form.
    pub toolchain: String,
    /// When, milliseconds since 1970.
    pub created_at_ms: u64,
}

/// What people call the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnitName {
    /// `--crate-name`.
    pub crate_name: String,
    /// `CARGO_PKG_VERSION`, or empty.
    pub version: String,
    /// Crate types and mode, e.g. `lib`, `bin`, `test`, `proc-macro`, `lib (check)`.
    pub kind: String,
    /// Target triple, or `host`.
    pub target: String,
}

/// One named part of what a unit key was made of, for people: the key itself cannot be taken apart.
/// Long texts are a beginning and a short digest, roots are tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnitPart {
    /// What kind of part, e.g. `compiler`, `cfg`, `-C`, `extern`.
    pub group: String,
    /// Which one of its kind, e.g. `opt-level`; empty where there is one only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its value, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// One stored result and the input set it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The unit.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub unit_key: UnitKey,
    /// [`result_key`] of the unit key, members and values.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub result_key: ResultKey,
    /// What people call the unit.
    pub unit: UnitName,
    /// What the unit key was made of. Missing in answers to lookups: a hit has no use for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<UnitPart>,
    /// The input set.
    pub members: Vec<Member>,
    /// The value of each member, in the same order.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub values: Vec<Digest>,
    /// Where a member is many variables at a time: each of them, with the short form of a digest of its
    /// value, for people. Missing in answers to lookups, and in older records.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// The files.
    pub outputs: Vec<Output>,
    /// The exit status of the tool: 0, but for a compile that was refused for what its source says.
    #[serde(default, skip_serializing_if = "is_success")]
    pub status: u8,
    /// Captured standard output, with roots as tokens.
    pub stdout: String,
    /// Captured standard error, with roots as tokens.
    pub stderr: String,
    /// What it cost.
    pub cost: Cost,
    /// Who made it.
    pub producer: Producer,
    /// Why the input set was not found by observation alone, for people; empty when it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conservative: Vec<String>,
}

fn is_success(status: &u8) -> bool {
    *status == 0
}

/// Why a record cannot be used or stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another version of the format.
    #[error("record version {0} is not {RECORD_VERSION}")]
    Version(u32),
    /// The key is not the key of the members and values.
    #[error("the result key does not belong to the input set")]
    Key,
    /// Members and values differ in number, or there are too many.
    #[error("{0} members and {1} values")]
    Members(usize, usize),
    /// An output whose name leads elsewhere, or is there twice.
    #[error("output name {0:?}")]
    OutputName(String),
    /// A variable with something else than the short form of a digest.
    #[error("a variable that is no digest")]
    Variable,
    /// A tool that failed, and left outputs.
    #[error("outputs of a tool that failed")]
    Failed,
    /// Something is over its bound.
    #[error("{what} is over its bound")]
    TooLarge {
        /// What.
        what: &'static str,
    },
}

/// The key of a result: unit key, and every member with its value.
pub fn result_key(unit: &UnitKey, members: &[Member], values: &[Digest]) -> ResultKey {
    let mut rows: Vec<(&Member, &Digest)> = members.iter().zip(values).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut encoder = Encoder::new("kiln result key v1");
    encoder.digest("unit", unit.digest()).number("members", rows.len() as u64);
    for (member, value) in rows {
        encode_member(&mut encoder, member);
        encoder.digest("value", value);
    }
    ResultKey::new(encoder.finish())
}

fn encode_member(encoder: &mut Encoder, member: &Member) {
    match member {
        Member::File(path) => encoder.text("file", &path.0),
        Member::Listing(path) => encoder.text("listing", &path.0),
        Member::Tree(path, filter) => {
            let filter = match filter {
                TreeFilter::Package => "package",
                TreeFilter::All => "all",
                TreeFilter::Libraries => "libraries",
                TreeFilter::Files => "files",
                TreeFilter::Crates => "crates",
            };
            encoder.text("tree", &path.0).text("filter", filter)
        }
        Member::Env(name, form) => encoder.text("env", name).text(
            "form",
            match form {
                EnvForm::Raw => "raw",
                EnvForm::Tokens => "tokens",
            },
        ),
        Member::Mode(path) => encoder.text("mode", &path.0),
        Member::Program(name) => encoder.text("program", name),
        Member::Upward(path, names) => encoder.text("upward", &path.0).list("names", names),
        Member::Root(token) => encoder.text("root", token),
        Member::DiagnosticWidth => encoder.text("diagnostic-width", ""),
        Member::Link(path) => encoder.text("link", &path.0),
        Member::Place(path) => encoder.text("place", &path.0),
        Member::Resolved(path) => encoder.text("resolved", &path.0),
        Member::Processor => encoder.text("processor", ""),
        Member::Environment(which) => encoder.text(
            "environment",
            match which {
                Variables::All => "all",
                Variables::Lasting => "lasting",
            },
        ),
    };
}

impl Record {
    /// Checks everything that can be checked without the blobs.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), RecordError> {
        if self.version != RECORD_VERSION {
            return Err(RecordError::Version(self.version));
        }
        if self.members.len() != self.values.len() || self.members.len() > limits::MAX_SET_MEMBERS {
            return Err(RecordError::Members(self.members.len(), self.values.len()));
        }
        if self.outputs.len() > limits::MAX_OUTPUTS {
            return Err(RecordError::TooLarge { what: "the number of outputs" });
        }
        if self.stdout.len().max(self.stderr.len()) > limits::MAX_STREAM_BYTES {
            return Err(RecordError::TooLarge { what: "a captured stream" });
        }
        let long = |text: &String| text.len() > limits::MAX_PART_BYTES;
        let mut texts =
            self.parts.iter().flat_map(|p| [&p.group, &p.name].into_iter().chain(&p.value));
        if self.parts.len() > limits::MAX_UNIT_PARTS || texts.any(long) {
            return Err(RecordError::TooLarge { what: "the description of the unit" });
        }
        let names = || self.variables.keys();
        if names().count() > limits::MAX_COUNTED_VARIABLES || names().any(long) {
            return Err(RecordError::TooLarge { what: "the list of variables" });
        }
        if !self.variables.values().all(|value| Digest::is_short(value)) {
            return Err(RecordError::Variable);
        }
        if self.status != 0 && !self.outputs.is_empty() {
            return Err(RecordError::Failed);
        }
        if let Some(name) = output::misplaced(&self.outputs) {
            return Err(RecordError::OutputName(name.chars().take(80).collect()));
        }
        if result_key(&self.unit_key, &self.members, &self.values) != self.result_key {
            return Err(RecordError::Key);
        }
        Ok(())
    }

    /// The blobs that the record names, each once, with their sizes.
    pub fn blobs(&self) -> Vec<(Digest, u64)> {
        let mut blobs: Vec<(Digest, u64)> = self
            .outputs
            .iter()
            .filter_map(|output| match &output.content {
                Content::Blob { digest, size } => Some((*digest, *size)),
                _ => None,
            })
            .collect();
        blobs.sort_unstable();
        blobs.dedup();
        blobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let unit_key = UnitKey::new(Digest::of(b"unit"));
        let members =
            vec![Member::File(TokenPath("<workspace>/src/lib.rs".into())), Member::DiagnosticWidth];
        let values = vec![Digest::of(b"1"), Digest::of(b"2")];
        Record {
            version: RECORD_VERSION,
            unit_key,
            result_key: result_key(&unit_key, &members, &values),
            unit: UnitName::default(),
            parts: Vec::new(),
            members,
            values,
            variables: Default::default(),
            outputs: vec![Output {
                name: "libx.rlib".into(),
                executable: false,
                mode: None,
                content: Content::Blob { digest: Digest::of(b"x"), size: 1 },
            }],
            status: 0,
            stdout: String::new(),
            stderr: String::new(),
            cost: Cost::default(),
            producer: Producer::default(),
            conservative: Vec::new(),
        }
    }

    #[test]
    fn a_good_record_passes_and_survives_json() {
        let record = record();
        assert_eq!(record.check(), Ok(()));
        let json = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&json).unwrap(), record);
    }

    #[test]
    fn outputs_lie_in_the_output_directory_and_a_failure_has_none() {
        let mut misplaced = record();
        misplaced.outputs[0].name = "../x".into();
        assert!(matches!(misplaced.check(), Err(RecordError::OutputName(_))));
        let mut failed = Record { status: 1, ..record() };
        assert_eq!(failed.check(), Err(RecordError::Failed));
        failed.outputs.clear();
        assert_eq!(failed.check(), Ok(()));
    }

    #[test]
    fn a_key_of_other_values_is_refused() {
        let mut record = record();
        record.values[0] = Digest::of(b"other");
        assert_eq!(record.check(), Err(RecordError::Key));
    }

    #[test]
    fn variables_are_listed_by_digests_alone() {
        let with = |name: &str, value: &str| {
            let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            Record { variables, ..record() }.check()
        };
        assert_eq!(with("A", &Digest::of(b"1").short()), Ok(()));
        for value in ["", "secret", "secrets!", "0123456", "012345678", "0123456A"] {
            assert_eq!(with("A", value), Err(RecordError::Variable), "{value}");
        }
        let long = "x".repeat(limits::MAX_PART_BYTES + 1);
        assert!(matches!(with(&long, "01234567"), Err(RecordError::TooLarge { .. })));
        let mut many = record();
        let row = |n: usize| (n.to_string(), "01234567".to_owned());
        many.variables = (0..=limits::MAX_COUNTED_VARIABLES).map(row).collect();
        assert!(matches!(many.check(), Err(RecordError::TooLarge { .. })));
        many.variables.pop_last();
        assert_eq!(many.check(), Ok(()));
    }

    #[test]
    fn a_record_without_a_list_of_variables_is_read() {
        let mut json = serde_json::to_value(record()).unwrap();
        assert!(json.as_object_mut().unwrap().remove("variables").is_none());
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record());
    }

    #[test]
    fn descriptions_are_bounded() {
        let mut record = record();
        record.parts = vec![UnitPart::default(); limits::MAX_UNIT_PARTS];
        record.parts[0].value = Some("x".repeat(limits::MAX_PART_BYTES));
        assert_eq!(record.check(), Ok(()));
        record.parts[0].name = "x".repeat(limits::MAX_PART_BYTES + 1);
        assert!(matches!(record.check(), Err(RecordError::TooLarge { .. })));
        record.parts = vec![UnitPart::default(); limits::MAX_UNIT_PARTS + 1];
        assert!(matches!(record.check(), Err(RecordError::TooLarge { .. })));
    }

    #[test]
    fn member_order_does_not_change_the_key() {
        let record = record();
        let members: Vec<_> = record.members.iter().rev().cloned().collect();
        let values: Vec<_> = record.values.iter().rev().copied().collect();
        assert_eq!(result_key(&record.unit_key, &members, &values), record.result_key);
    }
}
