//! The environment, read once: the only module that touches `std::env`.
//!
//! Everything else gets an [`Env`] or values resolved from it, so that every stage is a function
//! of its arguments. [`SETTINGS`] is the registry of Kiln's own names; `docs/settings.md` is
//! generated from it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use kiln_server::Access;

/// One variable that Kiln obeys.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it accepts.
    pub accepts: &'static str,
    /// What holds when it is unset.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// Every variable that Kiln obeys.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "KILN_SERVER",
        accepts: "`http(s)://host:port` or `unix:///path`",
        default: "a local server, found or started",
        about: "The server that answers, in place of a local one. What a local one stands before is \
                `KILN_UPSTREAM`; remote.md says which of them to set.",
    },
    Setting {
        name: "KILN_DIR",
        accepts: "an absolute path",
        default: "`$XDG_CACHE_HOME/kiln`, else `~/.cache/kiln`",
        about: "All local state: socket, store, index, logs. Two values never meet.",
    },
    Setting {
        name: "KILN_CONFIG",
        accepts: "an absolute path",
        default: "`$KILN_DIR/kiln.toml`, if it is there",
        about: "The file with settings of a server; see operations.md. The wrapper does not read it, a server that it \
                starts does.",
    },
    Setting {
        name: "KILN_CACHE_SIZE",
        accepts: "bytes, or a number with `KB`, `MB`, `GB`, `TB` (powers of 1000), `KiB`, `MiB`, `GiB`, `TiB` or `K`, \
                  `M`, `G`, `T` (powers of 1024)",
        default: "`10GiB`",
        about: "Size budget of the disk store.",
    },
    Setting {
        name: "KILN_STORAGE",
        accepts: "`file:///path`, `memory:`, `s3://bucket[/prefix]`, `gs://bucket[/prefix]`, \
                  `az://container[/prefix]` or `gha://`",
        default: "`file://$KILN_DIR/store`",
        about: "Where the server keeps blobs and results. Before a place far away it keeps what it uses in \
                `$KILN_DIR/store`; see remote.md.",
    },
    Setting {
        name: "KILN_UPSTREAM",
        accepts: "`http(s)://host:port` of another Kiln server, or `s3://…`, `gs://…`, `az://…`, `gha://` as \
                  in `KILN_STORAGE`",
        default: "none",
        about: "What is behind the server: asked for what is not here, and sent what is made here; see \
                remote.md.",
    },
    Setting {
        name: "KILN_TOKEN",
        accepts: "text",
        default: "none",
        about: "The bearer token for the Kiln server that `KILN_UPSTREAM` or `KILN_SERVER` names; see trust.md. \
                Compilers and build scripts do not see it.",
    },
    Setting {
        name: "KILN_TRUST",
        accepts: "an absolute path",
        default: "none",
        about: "The file with the rules for CI services and repositories, for a server; see trust.md.",
    },
    Setting {
        name: "KILN_TLS_CERT",
        accepts: "an absolute path",
        default: "none",
        about: "The certificate chain (PEM) that a server shows over TCP; with `KILN_TLS_KEY` it speaks TLS there and \
                nothing else; see operations.md.",
    },
    Setting {
        name: "KILN_TLS_KEY",
        accepts: "an absolute path",
        default: "none",
        about: "The key (PEM) of the certificate in `KILN_TLS_CERT`.",
    },
    Setting {
        name: "KILN_DRAIN",
        accepts: "seconds, 0 to 86400",
        default: "`120`",
        about: "How long a server that leaves goes on sending to what is behind it.",
    },
    Setting {
        name: "KILN_RUN",
        accepts: "text",
        default: "derived",
        about: "Identity of the run that this job belongs to; see jobs.md.",
    },
    Setting {
        name: "KILN_JOB",
        accepts: "text",
        default: "derived",
        about: "Identity of the job in its run, the same in all runs; see jobs.md.",
    },
    Setting {
        name: "KILN_MATRIX",
        accepts: "a JSON object, of scalars or nested, or `null`",
        default: "none",
        about: "The values that tell this job from others of its name; on GitHub `${{ toJSON(matrix) }}`. They are \
                added to the job's name.",
    },
    Setting {
        name: "KILN_MODE",
        accepts: "`read-write`, `read`, `off` or `refresh`",
        default: "`read-write`",
        about: "`read` stores nothing, `off` only runs the compiler, `refresh` compiles and replaces.",
    },
    Setting {
        name: "KILN_PATHS",
        accepts: "`portable` or `exact`",
        default: "`portable`",
        about: "`portable` remaps roots so that other checkouts hit; `exact` leaves paths alone and \
                hits at the same place only.",
    },
    Setting {
        name: "KILN_OBSERVE",
        accepts: "`on` or `off`",
        default: "`on`",
        about: "`on` sees what procedural macros and build scripts really read; `off` takes the whole \
                package and workspace of a macro for read, and runs build scripts each time.",
    },
    Setting {
        name: "KILN_BUILD_SCRIPTS",
        accepts: "`on` or `off`",
        default: "`on`",
        about: "`on` answers runs of build scripts too; `off` only runs them; see build-scripts.md.",
    },
    Setting {
        name: "KILN_LEASES",
        accepts: "`on` or `off`",
        default: "`on`",
        about: "`on` waits for what another job compiles at the moment, and gives cargo's slot back meanwhile; \
                see leases.md.",
    },
    Setting {
        name: "KILN_VERIFY",
        accepts: "a whole percentage, `0%` to `100%`",
        default: "`0%`",
        about: "That share of the hits of compiles is compiled all the same and compared with what \
                is stored; see verify.md.",
    },
    Setting {
        name: "KILN_REPORT_FILE",
        accepts: "an absolute path",
        default: "none",
        about: "The event of each unit is appended to this file as a line of JSON.",
    },
    Setting {
        name: "KILN_IDLE",
        accepts: "seconds, 1 to 31536000",
        default: "`600`",
        about: "Seconds until an idle local server goes.",
    },
    Setting {
        name: "KILN_LOG",
        accepts: "`error`, `warn`, `info` or `debug`",
        default: "`info`",
        about: "What the local server writes to `server.log`.",
    },
];

/// Variables that no program sees that Kiln runs: tools, linkers, build scripts. `kiln-front` hides them, too.
pub const HIDDEN: &[&str] = &["KILN_TOKEN"];

/// A snapshot of the process environment, arguments and working directory.
#[derive(Debug, Clone, Default)]
pub struct Env {
    vars: BTreeMap<OsString, OsString>,
    /// The working directory, where there is one.
    pub cwd: Option<PathBuf>,
    /// The path of this program, where it is known.
    pub program: Option<PathBuf>,
}

impl Env {
    /// The environment of this process.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    pub fn of_process() -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            cwd: std::env::current_dir().ok(),
            program: std::env::current_exe().ok(),
        }
    }

    /// The arguments of this process, without its own name.
    pub fn arguments() -> Vec<OsString> {
        std::env::args_os().skip(1).collect()
    }

    /// An environment made of pairs, for tests.
    pub fn of_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let vars = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self { vars, ..Self::default() }
    }

    /// The raw value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The value of a variable that is set, not empty and UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.to_str().filter(|value| !value.is_empty())
    }

    /// The value of a variable as an absolute path.
    pub fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// What it takes to get into a place behind a server.
    pub fn access(&self) -> Access {
        let text = |(name, value): (&OsStr, &OsStr)| {
            Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()))
        };
        let wanted = self.iter().filter_map(text).filter(|(name, _)| Access::wants(name));
        Access { variables: wanted.collect(), token: self.text("KILN_TOKEN").map(str::to_owned) }
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// The names of all variables, as far as they are UTF-8.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.vars.keys().filter_map(|name| name.to_str())
    }
}
