//! What the tests take from the machine: the toolchain, the system's programs, the way to the
//! registry. The only module that reads the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Variables that cargo needs on some machines to reach the registry.
const NETWORK: &[&str] = &[
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// The machine.
#[derive(Debug)]
pub struct Host {
    /// The directory of the real cargo, rustc and clippy-driver, without rustup in between.
    pub toolchain: PathBuf,
    /// Where temporary directories go; a short path.
    pub tmp: PathBuf,
    /// Variables for reaching the registry.
    pub network: Vec<(&'static str, OsString)>,
    /// The user's own cargo home, from whose settings the way to the registry may be needed.
    pub cargo_home: Option<PathBuf>,
    /// Where programs are looked for that are no part of a build under test.
    pub path: OsString,
    /// The server of S3's API, where `KILN_TEST_MOTO` names it.
    pub moto: Option<PathBuf>,
    /// Static programs for an image, in a directory that `KILN_TEST_PROGRAMS` names.
    pub programs: Option<PathBuf>,
    /// A root that debootstrap made, where `KILN_TEST_DEBIAN` names one.
    pub debian: Option<PathBuf>,
    /// Whether this process is root.
    pub is_root: bool,
}

/// The directories of the system's programs: a C compiler and a shell.
pub const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The machine, looked at once.
pub fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(look)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the harness that reads the environment"
)]
fn look() -> Host {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    // cargo says where it is to the tests that it runs.
    let beside = var("CARGO").map(PathBuf::from).and_then(|c| Some(c.parent()?.to_owned()));
    let toolchain =
        beside.filter(|dir| dir.join("clippy-driver").exists() && !dir.join("rustup").exists());
    let toolchain = toolchain.unwrap_or_else(|| {
        let output =
            Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end()).join("bin")
    });
    Host {
        toolchain,
        tmp: var("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from),
        network: NETWORK.iter().filter_map(|name| Some((*name, var(name)?))).collect(),
        cargo_home: var("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cargo"))),
        path: var("PATH").unwrap_or_default(),
        moto: var("KILN_TEST_MOTO").map(PathBuf::from),
        programs: var("KILN_TEST_PROGRAMS").map(PathBuf::from),
        debian: var("KILN_TEST_DEBIAN").map(PathBuf::from),
        is_root: rustix::process::getuid().is_root(),
    }
}
