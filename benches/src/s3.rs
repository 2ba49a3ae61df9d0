//! [`S3`]: a server of S3's protocol (moto) on a port of this machine, for one bench; and files in it by plain HTTP.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::cargo::{bare, run_to_end};
use crate::environment;
use crate::failure::{Failure, Outcome, while_doing};

/// The bucket that is there.
const BUCKET: &str = "benches";
/// Moto takes any key; without one it takes a request for an anonymous one.
const AUTHORIZATION: &str =
    "Authorization: AWS4-HMAC-SHA256 Credential=key/20200101/us-east-1/s3/aws4_request";

/// A running server. It ends when this goes.
#[derive(Debug)]
pub struct S3 {
    shell: Child,
    address: String,
}

impl S3 {
    /// Starts one on a free port, and makes the bucket.
    ///
    /// # Errors
    /// When `moto_server` is not in `PATH` or does not start.
    pub fn start() -> Outcome<Self> {
        let program = environment::find_program("moto_server").ok_or_else(|| {
            Failure::NotMeasured("moto_server is not in PATH: pip install 'moto[s3,server]'".into())
        })?;
        // It ends with this process, whose end of the pipe it waits for.
        let script = r#""$0" -H 127.0.0.1 -p 0 2>&1 & read -r _; kill $!"#;
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(while_doing("moto_server"))?;
        let none = || Failure::NotMeasured("moto_server does not start".into());
        let mut lines = BufReader::new(shell.stdout.take().ok_or_else(none)?).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("Running on http://")?;
            Some(address.trim().to_owned())
        });
        // What it goes on to say has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { shell, address: address.ok_or_else(none)? };
        run_to_end(server.curl("").args(["-X", "PUT"]))?;
        Ok(server)
    }

    /// What a Kiln needs to keep its results below a prefix.
    pub fn variables(&self, prefix: &str) -> Vec<(&'static str, OsString)> {
        vec![
            ("KILN_STORAGE", format!("s3://{BUCKET}/{prefix}").into()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address).into()),
            ("AWS_ACCESS_KEY_ID", "key".into()),
            ("AWS_SECRET_ACCESS_KEY", "key".into()),
        ]
    }

    /// A request for a file, without its method.
    fn curl(&self, name: &str) -> Command {
        let mut command = bare("curl");
        command.args(["--silent", "--show-error", "--fail", "-H", AUTHORIZATION]);
        command.arg(format!("http://{}/{BUCKET}/{name}", self.address));
        command
    }

    /// Stores a file.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn put(&self, name: &str, file: &Path) -> Outcome<()> {
        run_to_end(self.curl(name).arg("-T").arg(file)).map(drop)
    }

    /// A running request for a file; its bytes come on standard output.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn get(&self, name: &str) -> Outcome<Child> {
        let mut command = self.curl(name);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().map_err(while_doing("curl"))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
