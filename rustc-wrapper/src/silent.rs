//! The table of what rustc, clippy and the linker read without saying so.
//!
//! dep-info names sources and `env!` variables, nothing else. Each row here is a further input; each
//! has its test in `tests/`. Pure. Used by [`crate::inputs`].

use crate::env::SETTINGS;

/// For which units a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every unit.
    Always,
    /// Units that call a linker.
    Link,
    /// Units of clippy-driver.
    Clippy,
}

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct SilentVariable {
    /// Its name.
    pub name: &'static str,
    /// For which units it counts.
    pub when: When,
    /// What it does.
    pub note: &'static str,
}

const fn row(name: &'static str, when: When, note: &'static str) -> SilentVariable {
    SilentVariable { name, when, note }
}

/// Variables that are read without appearing in dep-info.
pub const VARIABLES: &[SilentVariable] = &[
    row("RUSTC_BOOTSTRAP", When::Always, "allows unstable features, for all crates or some"),
    row("RUSTC_FORCE_RUSTC_VERSION", When::Always, "the version that crates are stamped with"),
    row("RUSTC_OVERRIDE_VERSION_STRING", When::Always, "the version that crates are stamped with"),
    row("RUST_TARGET_PATH", When::Always, "where target descriptions are looked for"),
    row("RUSTC_LOG", When::Always, "prints to standard error"),
    row("RUST_FORBID_DEP_GRAPH_EDGE", When::Always, "makes the compile fail"),
    row("RUSTC_BREAK_ON_ICE", When::Always, ""),
    row("SDKROOT", When::Link, "Apple's SDK"),
    row("MACOSX_DEPLOYMENT_TARGET", When::Always, "Apple's oldest system"),
    row("LIBRARY_PATH", When::Link, "where the C compiler looks for libraries"),
    row("COMPILER_PATH", When::Link, "where the C compiler looks for its linker"),
    row("GCC_EXEC_PREFIX", When::Link, "where the C compiler looks for its parts"),
    row("GCC_COMPARE_DEBUG", When::Link, "compiles twice"),
    row("CCC_OVERRIDE_OPTIONS", When::Link, "edits clang's arguments"),
    row("LD_RUN_PATH", When::Link, "written into the executable"),
    row("LD_LIBRARY_PATH", When::Link, "where the linker looks for libraries of libraries"),
    row("LPATH", When::Link, "where gcc looks for libraries, as LIBRARY_PATH"),
    row("GCC_ROOT", When::Link, "where gcc looks for its parts"),
    row("BINUTILS_ROOT", When::Link, "where gcc looks for binutils"),
    row("COLLECT_NO_DEMANGLE", When::Link, "text of messages"),
    row("LLD_VERSION", When::Link, "the version that lld writes into its output"),
    row("LLD_REPRODUCE", When::Link, "writes a file beside the output"),
    row("LLVM_OVERRIDE_PRODUCER", When::Always, "the producer that bitcode names"),
    row("CARGO_CRATE_NAME", When::Always, "text of diagnostics"),
    row("LDEMULATION", When::Link, "what the linker emulates"),
    row("GNUTARGET", When::Link, "the format of objects"),
    row("LD_PRELOAD", When::Always, "code in every process"),
    row("CLIPPY_ARGS", When::Clippy, "lint levels given to cargo clippy"),
    row("CLIPPY_CONF_DIR", When::Clippy, "where clippy.toml is looked for"),
    row("CLIPPY_DISABLE_DOCS_LINKS", When::Clippy, "text of diagnostics"),
    row("CARGO_PKG_RUST_VERSION", When::Clippy, "the oldest compiler that lints care for"),
    row("SYSROOT", When::Clippy, "where clippy-driver looks for its libraries"),
    row("CARGO_PRIMARY_PACKAGE", When::Clippy, "whether this package is linted"),
    row("CARGO_MANIFEST_DIR", When::Clippy, "where clippy.toml is looked for"),
];

/// Lists of directories in which a linker looks for libraries.
pub const LIBRARY_LISTS: &[&str] = &["LIBRARY_PATH", "LPATH", "LD_LIBRARY_PATH"];

/// The rows of a unit.
pub fn variables(links: bool, clippy: bool) -> impl Iterator<Item = &'static str> {
    VARIABLES
        .iter()
        .filter(move |row| match row.when {
            When::Always => true,
            When::Link => links,
            When::Clippy => clippy,
        })
        .map(|row| row.name)
}

/// Variables that never are an input: Kiln's own, and those that carry the jobserver.
pub fn is_neutral(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name)
        || matches!(name, "KILN_TOKEN" | "CARGO_MAKEFLAGS" | "MAKEFLAGS" | "MFLAGS")
}

/// Names of variables that belong to a login, a terminal, one call of cargo, one run of CI or the way into a
/// storage service, and beginnings of such names (with an underscore at the end). They change all the time; where it is not known
/// which variables a procedural macro or a program of a build script reads, these are taken not to be
/// among them.
pub const OF_SESSION: &[&str] = &[
    "ACTIONS_",
    "AGENT_",
    "APPVEYOR_",
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_",
    "BITBUCKET_",
    "BUILDKITE_",
    "BUILD_BUILDID",
    "BUILD_BUILDNUMBER",
    "BUILD_BUILDURI",
    "BUILD_DISPLAY_NAME",
    "BUILD_ID",
    "BUILD_NUMBER",
    "BUILD_SOURCEBRANCH",
    "BUILD_SOURCEBRANCHNAME",
    "BUILD_SOURCEVERSION",
    "BUILD_SOURCEVERSIONMESSAGE",
    "BUILD_TAG",
    "BUILD_URL",
    "BUILD_VCS_NUMBER",
    "CARGO_BUILD_",
    "CARGO_INCREMENTAL",
    "CARGO_LOG",
    "CARGO_NET_",
    "CARGO_TARGET_DIR",
    "CARGO_TERM_",
    "CI",
    "CIRCLE_",
    "CI_",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "CODEBUILD_",
    "COLORTERM",
    "COLUMNS",
    "DBUS_",
    "DESKTOP_",
    "DISPLAY",
    "DRONE_",
    "EDITOR",
    "EXECUTOR_NUMBER",
    "FORGEJO_",
    "GITEA_",
    "GITHUB_",
    "GITLAB_",
    "GOOGLE_",
    "GPG_",
    "HISTCONTROL",
    "HISTFILE",
    "HISTSIZE",
    "HOSTNAME",
    "HUDSON_",
    "INVOCATION_ID",
    "ITERM_",
    "ImageVersion",
    "JENKINS_",
    "JOB_BASE_NAME",
    "JOB_DISPLAY_URL",
    "JOB_NAME",
    "JOB_URL",
    "JOURNAL_STREAM",
    "KITTY_",
    "LANG",
    "LANGUAGE",
    "LC_",
    "LESS",
    "LESSCLOSE",
    "LESSOPEN",
    "LINES",
    "LOGNAME",
    "LS_COLORS",
    "MAIL",
    "MEMORY_",
    "NODE_LABELS",
    "NODE_NAME",
    "NO_COLOR",
    "OLDPWD",
    "PAGER",
    "PROMPT_",
    "PS1",
    "PS2",
    "PWD",
    "RUNNER_",
    "RUN_ARTIFACTS_DISPLAY_URL",
    "RUN_CHANGES_DISPLAY_URL",
    "RUN_DISPLAY_URL",
    "RUN_TESTS_DISPLAY_URL",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "SEMAPHORE_",
    "SESSION_",
    "SHELL",
    "SHLVL",
    "SSH_",
    "STAGE_NAME",
    "STY",
    "SYSTEMD_",
    "SYSTEM_",
    "TEAMCITY_",
    "TEMP",
    "TERM",
    "TERM_",
    "TMP",
    "TMPDIR",
    "TMUX",
    "TMUX_",
    "TRAVIS_",
    "USER",
    "USERNAME",
    "VISUAL",
    "VSCODE_",
    "WAYLAND_DISPLAY",
    "WINDOWID",
    "WORKSPACE_TMP",
    "XDG_",
    "_",
];

/// Whether a variable is one of [`OF_SESSION`].
pub fn is_of_session(name: &str) -> bool {
    let begins = |entry: &str| entry.len() > 1 && entry.ends_with('_') && name.starts_with(entry);
    OF_SESSION.iter().any(|entry| name == *entry || begins(entry))
}

/// Directories of the system, whose libraries count one by one and not as a whole.
pub fn is_system_dir(path: &str) -> bool {
    let below = |dir: &str| path == dir || path.starts_with(&format!("{dir}/"));
    ["/usr", "/lib", "/lib64", "/lib32"].into_iter().any(below)
}
