//! `kiln-server token create|list|revoke`: the tokens of a server's directory. The server sees a change at once.

use std::io::Write;
use std::path::Path;

use kiln_storage::Scope;

use super::document::Token;
use super::secret::{Secret, TOKEN_PREFIX};
use super::spending::Allowance;
use super::tokens::TokenFile;
use crate::clock;
use crate::config::parse_size;
use crate::gc::parse_time;
use crate::limits::{MAX_REF_BYTES, MAX_TOKEN_LIFE, MAX_TOKEN_NAME_BYTES};

/// How to call it.
pub const USAGE: &str =
    "usage: kiln-server token create --name NAME --repository REPOSITORY --ref REF
                   [--rights read|write] [--read [REPOSITORY@]REF]... [--expires TIME]
                   [--max-requests NUMBER] [--max-upload SIZE]
       kiln-server token list
       kiln-server token revoke NAME
       each with [--dir PATH], the directory of the server (KILN_DIR)";

/// Runs the command in a server's directory; says what it did on `out`. What may not be what was meant is returned, for
/// people.
///
/// # Errors
/// What is wrong, for people.
pub fn token(args: &[String], dir: &Path, out: &mut dyn Write) -> Result<Option<String>, String> {
    let file = TokenFile::of(dir);
    let failed = |error: std::io::Error| error.to_string();
    match args.first().map(String::as_str) {
        Some("create") => {
            let asked = Asked::parse(&args[1..])?;
            let doubt = asked.doubt();
            let secret = Secret::make(TOKEN_PREFIX).ok_or("the system has no chance to give")?;
            file.add(asked.token(&secret, clock::now_ms())).map_err(|error| error.to_string())?;
            writeln!(out, "{}", secret.expose()).map_err(failed)?;
            Ok(doubt)
        }
        Some("list") if args.len() == 1 => {
            let tokens = file.read().map_err(|error| error.to_string())?.unwrap_or_default();
            let uses = file.uses();
            let lines = tokens.iter().map(|token| line(token, uses.get(&token.name).copied()));
            lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).map_err(failed)?;
            Ok(None)
        }
        Some("revoke") if args.len() == 2 => {
            file.revoke(&args[1]).map_err(|error| error.to_string())?;
            writeln!(out, "revoked {}", args[1]).map_err(failed)?;
            Ok(None)
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn line(token: &Token, used_ms: Option<u64>) -> String {
    let day = |ms: u64| clock::iso(ms).chars().take(10).collect::<String>();
    let scope = |scope: &Scope| format!("{}@{}", scope.repository(), scope.reference());
    let reads: Vec<String> = token.reads.iter().map(scope).collect();
    format!(
        "{}: reads {}; writes {}; until {}{}; last used {}",
        token.name,
        reads.join(" "),
        token.writes.as_ref().map_or_else(|| "nothing".to_owned(), scope),
        day(token.expires_ms),
        if token.expires_ms <= clock::now_ms() { " (over)" } else { "" },
        used_ms.map_or_else(|| "never".to_owned(), day)
    )
}

/// What a token is to be.
struct Asked {
    name: String,
    own: Scope,
    reads: Vec<Scope>,
    writes: bool,
    life_ms: u64,
    allowance: Allowance,
}

impl Asked {
    fn parse(args: &[String]) -> Result<Self, String> {
        let (mut name, mut repository, mut reference) = (None, None, None);
        let (mut reads, mut writes, mut expires) = (Vec::new(), false, "90d");
        let mut allowance = Allowance::default();
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} has no value\n{USAGE}"))?;
            match flag.as_str() {
                "--name" => name = Some(value),
                "--repository" => repository = Some(value),
                "--ref" => reference = Some(value),
                "--read" => reads.push(value),
                "--rights" if value == "write" => writes = true,
                "--rights" if value == "read" => writes = false,
                "--rights" => return Err(format!("rights is {value:?}; it accepts read or write")),
                "--expires" => expires = value,
                "--max-requests" => allowance.max_requests = Some(number(value)?),
                "--max-upload" => allowance.max_upload = Some(size(value)?),
                _ => return Err(format!("unknown flag {flag:?}\n{USAGE}")),
            }
        }
        let needed = |value: Option<&String>, flag: &str| {
            value.cloned().ok_or_else(|| format!("{flag} is missing\n{USAGE}"))
        };
        let name = needed(name, "--name")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
        if name.is_empty() || name.len() > MAX_TOKEN_NAME_BYTES || !name.chars().all(plain) {
            return Err(format!(
                "the name has other characters than letters, digits and . _ - / :, or more than \
                 {MAX_TOKEN_NAME_BYTES}"
            ));
        }
        let repository = part(&needed(repository, "--repository")?)?;
        let own = Scope::new(repository.clone(), part(&needed(reference, "--ref")?)?);
        let read = |text: &String| match text.split_once('@') {
            Some((repository, reference)) => Ok(Scope::new(part(repository)?, part(reference)?)),
            None => Ok(Scope::new(repository.clone(), part(text)?)),
        };
        let others = reads.into_iter().map(read).collect::<Result<Vec<_>, String>>()?;
        let mut reads = vec![own.clone()];
        reads.extend(others.into_iter().filter(|other| *other != own));
        let life = parse_time("expires", expires).map_err(|error| error.to_string())?;
        if life.is_zero() || life > MAX_TOKEN_LIFE {
            return Err("expires is nothing, or more than ten years".into());
        }
        let life_ms = u64::try_from(life.as_millis()).map_err(|error| error.to_string())?;
        Ok(Self { name, own, reads, writes, life_ms, allowance })
    }

    /// A ref that is written otherwise than a service of CI writes it in the tokens of jobs.
    fn doubt(&self) -> Option<String> {
        let short = self.reads.iter().find(|scope| !scope.reference().starts_with("refs/"))?;
        let (repository, reference) = (short.repository(), short.reference());
        Some(format!(
            "note: {repository}@{reference} is a scope of its own: jobs that log in by OIDC name a branch in full, \
             as refs/heads/{reference}"
        ))
    }

    fn token(self, secret: &Secret, now_ms: u64) -> Token {
        Token {
            name: self.name,
            hash: secret.hash(),
            reads: self.reads,
            writes: self.writes.then_some(self.own),
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(self.life_ms),
            max_requests: self.allowance.max_requests,
            max_upload: self.allowance.max_upload,
        }
    }
}

/// Requests in a minute.
fn number(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| {
        format!("max-requests is {text:?}; it accepts a number of requests in a minute")
    })
}

/// Bytes in an hour.
fn size(text: &str) -> Result<u64, String> {
    parse_size("max-upload", text, "a size in an hour such as 20GiB")
        .map_err(|error| error.to_string())
}

/// A repository or a ref that can be part of a scope.
fn part(text: &str) -> Result<String, String> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || c == '@';
    if text.is_empty() || text.len() > MAX_REF_BYTES || text.chars().any(bad) {
        return Err(format!("{text:?} is neither a repository nor a ref"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path, line: &str) -> Result<String, String> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut out = Vec::new();
        token(&args, dir, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn tokens_are_made_listed_and_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let made = run(dir, "create --name ci --repository github:7 --ref refs/heads/main --rights write --read refs/heads/1.x --read other@main").unwrap();
        assert!(made.starts_with(TOKEN_PREFIX) && made.lines().count() == 1);
        let reader =
            run(dir, "create --name dev --repository github:7 --ref refs/heads/main --expires 1d")
                .unwrap();
        let listed = run(dir, "list").unwrap();
        assert!(!listed.contains(made.trim()) && !listed.contains(reader.trim()));
        let ci = "ci: reads github:7@refs/heads/main github:7@refs/heads/1.x other@main; writes github:7@refs/heads/main; until ";
        assert!(listed.starts_with(ci), "{listed}");
        assert!(
            listed.contains("\ndev: reads github:7@refs/heads/main; writes nothing; until "),
            "{listed}"
        );
        assert!(listed.contains("last used never"));
        assert_eq!(run(dir, "revoke ci").unwrap(), "revoked ci\n");
        assert!(run(dir, "revoke ci").unwrap_err().contains("no token"));
        assert_eq!(run(dir, "list").unwrap().lines().count(), 1);
    }

    #[test]
    fn a_ref_that_no_job_names_so_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let doubt = |name: &str, refs: &[&str]| {
            let words = ["create", "--name", name, "--repository", "github:7"];
            let args: Vec<String> = words.iter().chain(refs).map(ToString::to_string).collect();
            token(&args, dir.path(), &mut Vec::new()).unwrap()
        };
        assert_eq!(doubt("a", &["--ref", "refs/heads/main"]), None);
        let short = doubt("b", &["--ref", "refs/pull/1/merge", "--read", "main"]).unwrap();
        assert!(short.contains("github:7@main") && short.contains("refs/heads/main"), "{short}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let whole = "create --name n --repository r --ref m";
        for (line, says) in [
            ("create --name n --ref m".to_owned(), "--repository is missing"),
            ("create --name n --repository r".to_owned(), "--ref is missing"),
            (format!("{whole} --rights all"), "read or write"),
            (format!("{whole} --expires never"), "30d"),
            (format!("{whole} --expires 0d"), "ten years"),
            (format!("{whole} --expires 9999d"), "ten years"),
            (format!("{whole} --name \u{1b}"), "characters"),
            (format!("{whole} --ref a@b"), "neither"),
            (format!("{whole} --read"), "no value"),
            (format!("{whole} --max-requests 0"), "in a minute"),
            (format!("{whole} --max-upload much"), "20GiB"),
            (format!("{whole} --admin yes"), "unknown flag"),
            ("list all".to_owned(), "usage"),
        ] {
            let error = run(dir.path(), &line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
        assert!(!dir.path().join("tokens.json").exists());
    }
}
