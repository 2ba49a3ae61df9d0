//! `kiln-server revoke`: through the socket of the server of a directory, or in the directory itself where none runs.

use std::io::{Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use kiln_storage::api::plain;

use super::{RevokeRequest, Revoked, audited};
use crate::clock;
use crate::config::{Listen, Role, ServeConfig};
use crate::gc::parse_time;
use crate::limits::{MAX_JSON_ANSWER_BYTES, REVOKE_ANSWER};
use crate::place::ADMIN_SOCKET;
use crate::serve::{ServeError, Server};

/// How to call it.
pub const USAGE: &str =
    "usage: kiln-server revoke [--run RUN] [--job JOB] [--principal WHO] [--toolchain DIGEST]
                   [--scope REPOSITORY@REF] [--since TIME] [--here] [--yes] [--format text|json]
                   [--dir PATH] [--role local|shared] [--listen ADDRESS:PORT|unix:///PATH]
                   [--storage URL] [--upstream URL]
       At least one of the first six, and all that are given have to fit. TIME is 2026-01-31T12:00:00Z, or how
       long ago, such as 6h. WHO is a name as the log has it (\"token ci\", \"user 1000\", \"anybody\", \"unknown\",
       \"behind\"), or of a job repository:ID, ref:REF, actor:ID, commit:SHA, event:NAME.
       With --here nothing is taken back in the place behind the server.
       Without --yes nothing is removed, and it is said what would be.";

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeEnd {
    /// All that was meant is gone, or was only to be shown.
    Done,
    /// Something is there still.
    Left,
}

/// Why nothing was done, or not all.
#[derive(Debug)]
pub enum RevokeError {
    /// It is not called as it should be.
    Usage(String),
    /// It failed.
    Failed(String),
}

/// What is asked for.
#[derive(Debug, Default)]
struct Asked {
    request: RevokeRequest,
    json: bool,
}

impl Asked {
    fn parse(args: &[String], now_ms: u64) -> Result<Self, String> {
        let mut asked = Self::default();
        let request = &mut asked.request;
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--yes" => request.remove = true,
                "--here" => request.here = true,
                _ => {}
            }
            if matches!(flag.as_str(), "--yes" | "--here") {
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{flag} has no value\n{USAGE}"))?;
            let text = || Some(value.clone());
            match flag.as_str() {
                "--run" => request.run = text(),
                "--job" => request.job = text(),
                "--principal" => request.principal = text(),
                "--toolchain" => request.toolchain = text(),
                "--scope" => request.scope = text(),
                "--since" => request.since_ms = Some(since(value, now_ms)?),
                "--format" if value == "json" => asked.json = true,
                "--format" if value == "text" => asked.json = false,
                "--format" => return Err(format!("format is {value:?}; it accepts text or json")),
                _ => return Err(format!("unknown flag {flag:?}\n{USAGE}")),
            }
        }
        match super::Wanted::of(request) {
            Some(_) => Ok(asked),
            None => Err(format!("it is not said which results\n{USAGE}")),
        }
    }

    /// The arguments that do it, with a time that stays the same.
    fn command(&self, server: &[String]) -> String {
        let RevokeRequest { run, job, principal, toolchain, scope, since_ms, .. } = &self.request;
        let since = since_ms.map(clock::iso);
        let all = [
            ("--run", run),
            ("--job", job),
            ("--principal", principal),
            ("--toolchain", toolchain),
            ("--scope", scope),
            ("--since", &since),
        ];
        let all = all.into_iter().filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
        let mut words = vec!["kiln-server".to_owned(), "revoke".to_owned()];
        words.extend(all.flat_map(|(flag, value)| [flag.to_owned(), quoted(value)]));
        words.extend(self.request.here.then(|| "--here".to_owned()));
        words.extend(server.iter().map(|word| quoted(word)));
        words.push("--yes".to_owned());
        words.join(" ")
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A time, or how long ago it was.
fn since(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Some(ms) = clock::parse(text) {
        return Ok(ms);
    }
    let ago = parse_time("since", text).map_err(|_| {
        format!("since is {text:?}; it accepts a time such as 2026-01-31T12:00:00Z, or how long ago, such as 6h")
    })?;
    Ok(now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}

/// Runs the command for the server of a configuration; says on `out` what went or would go. `server`: the flags that
/// named the server.
///
/// # Errors
/// [`RevokeError`].
pub fn revoke(
    args: &[String],
    (config, server): (ServeConfig, &[String]),
    out: &mut dyn Write,
) -> Result<RevokeEnd, RevokeError> {
    let asked = Asked::parse(args, clock::now_ms()).map_err(RevokeError::Usage)?;
    let behind = config.remote.url.as_ref().map(|(_, url)| url.display());
    let revoked = find(config, &asked.request).map_err(RevokeError::Failed)?;
    let text = match asked.json {
        true => serde_json::to_string(&revoked).map(|text| text + "\n"),
        false => Ok(told(&revoked, &asked.command(server), behind.as_deref())),
    };
    let written =
        text.map_err(std::io::Error::other).and_then(|text| out.write_all(text.as_bytes()));
    written.and_then(|()| out.flush()).map_err(|error| RevokeError::Failed(error.to_string()))?;
    let left = revoked.behind.as_ref().is_some_and(|behind| behind.left > 0)
        || (revoked.removed && revoked.unknown.is_some());
    Ok(if left || revoked.stay > 0 { RevokeEnd::Left } else { RevokeEnd::Done })
}

/// Has the server of a directory do it, or does it where none runs.
fn find(config: ServeConfig, request: &RevokeRequest) -> Result<Revoked, String> {
    let dir = config.kiln_dir.clone();
    if !dir.is_dir() {
        return Err(format!("{} is no directory of a server; name it by --dir", dir.display()));
    }
    let sockets = [config.listen.socket.clone(), Some(dir.join(ADMIN_SOCKET))];
    for socket in sockets.into_iter().flatten() {
        if UnixStream::connect(&socket).is_ok() {
            return through(&socket, request);
        }
    }
    // What another user makes in there, its server could not use.
    let owner = dir.metadata().map_err(|error| error.to_string())?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(format!("{} belongs to user {owner}: call this as that user", dir.display()));
    }
    let alone = ServeConfig { listen: Listen::default(), role: Role::Local, ..config };
    let request = request.clone();
    let server = Server::bind(alone).map_err(|error| match error {
        ServeError::AlreadyRunning => format!(
            "a server runs in {}, and no socket of it answers; name the one it listens on by --listen unix:///PATH, \
             or stop it and call this again",
            dir.display()
        ),
        error => error.to_string(),
    })?;
    let done = server.alone(async move |service| {
        let mut all = audited(&service, request.clone(), "the command").await?;
        while all.more && request.remove {
            all = all.and(audited(&service, request.clone(), "the command").await?);
        }
        Ok(all)
    });
    done.map_err(|error| error.to_string())
}

/// Asks a running server, again and again while there is more to remove.
fn through(socket: &PathBuf, request: &RevokeRequest) -> Result<Revoked, String> {
    let mut all = ask(socket, request)?;
    while all.more && request.remove {
        all = all.and(ask(socket, request)?);
    }
    let left = all.behind.as_ref().is_some_and(|behind| behind.left > 0);
    if request.remove && all.results > 0 && !left {
        // What was on its way from behind the server meanwhile may have come.
        let again = ask(socket, request)?;
        all = all.and(Revoked { more: false, ..again });
    }
    Ok(all)
}

fn ask(socket: &PathBuf, request: &RevokeRequest) -> Result<Revoked, String> {
    let failed = |error: std::io::Error| format!("unix://{}: {error}", socket.display());
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(REVOKE_ANSWER)).map_err(failed)?;
    let head = format!(
        "POST /v1/revoke HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MAX_JSON_ANSWER_BYTES).read_to_end(&mut answer).map_err(failed)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.map_or(answer.len(), |end| end + 4));
    let head = String::from_utf8_lossy(head);
    let line = head.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => serde_json::from_slice(body).map_err(|error| error.to_string()),
        Some("404") => Err("the server that runs is of a version that cannot revoke".to_owned()),
        _ => Err(format!(
            "unix://{} answers {line:?} {}",
            socket.display(),
            String::from_utf8_lossy(body)
        )),
    }
}

/// What went or would go, for people.
fn told(revoked: &Revoked, command: &str, behind: Option<&str>) -> String {
    let Revoked { results, bytes, makers, first, .. } = revoked;
    let (verb, least) = match (revoked.removed, revoked.more) {
        (true, _) => ("are removed", ""),
        (false, true) => ("would go", "at least "),
        (false, false) => ("would go", ""),
    };
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
    let mut lines = vec![format!(
        "{least}{results} results {verb}, {} with the files that they name",
        mebibytes(*bytes)
    )];
    for of in makers {
        let said =
            [("run", &of.said.run), ("job", &of.said.job), ("toolchain", &of.said.toolchain)];
        let said = said.iter().filter(|(_, text)| !text.is_empty());
        let said: Vec<String> =
            said.map(|(what, text)| format!("{what} {}", plain(text))).collect();
        let said =
            if said.is_empty() { String::new() } else { format!(" (says: {})", said.join(", ")) };
        lines.push(format!(
            "  {}: {} results, {}{said}",
            of.principal,
            of.results,
            mebibytes(of.bytes)
        ));
    }
    let of_makers: u64 = makers.iter().map(|of| of.results).sum();
    if of_makers < *results {
        lines.push(format!("  others: {} results", results - of_makers));
    }
    if revoked.evicted > 0 {
        lines.push(format!(
            "{} results that are behind the server and not here any more: taken back there, too",
            revoked.evicted
        ));
    }
    if revoked.also_by_others > 0 {
        lines.push(format!("somebody else published {} of them, too", revoked.also_by_others));
    }
    for one in first {
        let at = clock::iso(one.at_ms);
        let unit = plain(&one.unit);
        lines.push(format!("  {} {unit} of {}, {at}", one.result_key, one.principal));
    }
    if *results > first.len() as u64 {
        lines.push(format!("  and {} more", results - first.len() as u64));
    }
    lines.extend(left(revoked, behind));
    if !revoked.removed && *results + revoked.evicted > 0 {
        lines.push(format!("nothing is removed; this does it:\n    {command}"));
    }
    lines.join("\n") + "\n"
}

/// What is out of reach.
fn left(revoked: &Revoked, behind: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    if revoked.stay > 0 {
        lines.push(format!(
            "{} objects are still in the store ({}): an index that is made anew finds them again; make it writable \
             and revoke again then",
            revoked.stay,
            revoked.stay_why.as_deref().unwrap_or_default()
        ));
    }
    if let Some(of) = &revoked.behind {
        lines.push(format!("{}: {} results are taken back there", of.place, of.gone));
        if of.left > 0 {
            let why = of.why.as_deref().unwrap_or_default();
            lines.push(format!("{}: {} results may be there still: {why}", of.place, of.left));
        }
    } else if let Some(place) = behind {
        lines.push(format!("{place}: what others stored there is not known here"));
    }
    lines.extend(revoked.unknown.clone());
    if revoked.results > 0 {
        lines.push(
            "hint: machines that fetched some of them have copies: call this there with --principal behind --here, or remove \
             their KILN_DIR"
                .to_owned(),
        );
        lines.push(
            "hint: who made them gets in as before: revoke the token, or change the rules"
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Asked, String> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Asked::parse(&args, 1_767_225_600_000)
    }

    #[test]
    fn the_command_that_does_it_means_the_same() {
        let asked = parse("--run 42 --principal o'r --since 6h").unwrap();
        assert!(!asked.request.remove && !asked.json);
        let command = asked.command(&["--dir".to_owned(), "/a b".to_owned()]);
        let says = r"kiln-server revoke --run 42 --principal 'o'\''r' --since 2025-12-31T18:00:00.000Z --dir '/a b' --yes";
        assert_eq!(command, says);
        assert!(parse("--since 2025-12-31T18:00:00.000Z --yes").unwrap().request.remove);
    }

    /// Root alone can make the case; elsewhere there is nothing to see.
    #[test]
    fn a_directory_of_another_user_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = ServeConfig::shared(dir.path());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65532), Some(65532)).unwrap();
            let error = find(config, &RevokeRequest::default()).unwrap_err();
            assert!(error.contains("belongs to user 65532"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, says) in [
            ("--yes", "not said which"),
            ("--run", "no value"),
            ("--run  --yes", "not said which"),
            ("--since yesterday", "6h"),
            ("--run 1 --format xml", "text or json"),
            ("--all yes", "unknown flag"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
