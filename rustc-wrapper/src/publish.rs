//! From a finished compile to a stored result: outputs hashed and scanned, the input set found and
//! evaluated, the record handed to the server.
//!
//! Nothing is stored in doubt: an input that changed while the tool ran, an output that is
//! missing, a text that cannot be written for another place. Each has its reason.

use std::path::{Path, PathBuf};

use kiln_storage::api::{MissingRequest, Offer, PublishRequest, QUARANTINED_STATUS};
use kiln_storage::record::{Content, Member, Output, Producer, RECORD_VERSION, Record, result_key};
use kiln_storage::{Digest, ResultKey, limits};

use crate::client::{Client, ClientError};
use crate::compile::Finished;
use crate::config::Mode;
use crate::diagnostics::has_diagnostics;
use crate::engine::Engine;
use crate::inputs::{self, Inputs, Run, Unknown};
use crate::linker::LinkPlan;
use crate::needles::Needles;
use crate::objects::Classes;
use crate::observe::seen::Seen;
use crate::outputs::{self, Made, Scanned};
use crate::quick::QuickMap;
use crate::roots::Escape;
use crate::session::Session;
use crate::variables;

/// What the stages before know of a compile.
#[derive(Debug)]
pub struct Compiled<'a> {
    /// How the tool ended.
    pub finished: &'a Finished,
    /// A [`crate::stamp::barrier`] right before it was started, nanoseconds.
    pub started_ns: i128,
    /// The run's private directory.
    pub private: &'a Path,
    /// How the link step was traced, if there was one.
    pub link: Option<&'a LinkPlan>,
    /// What was observed, or why nothing was.
    pub seen: Result<&'a Seen, &'a str>,
}

fn unknown(reason: &'static str, detail: impl ToString) -> Unknown {
    Unknown { reason, detail: detail.to_string() }
}

/// Stores the result of a compile; its key.
///
/// # Errors
/// Why it was not stored.
pub fn publish(session: &mut Session<'_>, compiled: &Compiled<'_>) -> Result<ResultKey, Unknown> {
    let refused = !compiled.finished.status.success();
    let (mut inputs, record_outputs, offers) = match refused {
        false => made(session, compiled)?,
        true => (refusal(session, compiled)?, Vec::new(), Vec::new()),
    };
    let text = |text: &Option<String>| -> Result<String, Unknown> {
        let text =
            text.as_ref().ok_or_else(|| unknown("long-output", "over its bound or not UTF-8"))?;
        session
            .roots
            .template(text, escape(session))
            .ok_or_else(|| unknown("odd-output", "control character"))
    };
    let (stdout, stderr) = (text(&compiled.finished.stdout)?, text(&compiled.finished.stderr)?);
    if has_diagnostics(&stderr) {
        inputs.members.insert(Member::DiagnosticWidth);
    }
    let members: Vec<Member> = inputs.members.into_iter().collect();
    let values = evaluate(session, &members, compiled.started_ns)?;
    let variables = variables::list(&mut session.evaluator(), &members);
    let record = Record {
        version: RECORD_VERSION,
        unit_key: session.named.key,
        result_key: result_key(&session.named.key, &members, &values),
        unit: session.named.name.clone(),
        parts: crate::unit::parts::kept(&session.named.parts),
        members,
        values,
        variables,
        outputs: record_outputs,
        status: refused.into(),
        stdout,
        stderr,
        cost: compiled.finished.cost,
        producer: Producer {
            run: session.event.run.clone(),
            job: session.event.job.clone(),
            toolchain: session.tool.digest.short(),
            created_at_ms: session.event.at_ms,
        },
        conservative: inputs.conservative.clone(),
    };
    session.event.bytes = record.blobs().iter().map(|(_, size)| size).sum();
    session.event.pinned = inputs.pinned;
    session.event.conservative = inputs.conservative;
    let members = record.members.clone();
    let key = hand_over(session, record, offers)?;
    session.members = Some(members);
    Ok(key)
}

/// The input set of a compile that succeeded, and its outputs.
fn made(
    session: &mut Session<'_>,
    compiled: &Compiled<'_>,
) -> Result<(Inputs, Vec<Output>, Vec<Offer>), Unknown> {
    let made = outputs::collect(&session.unit, compiled.started_ns)
        .map_err(|error| unknown("unreadable-output", error))?;
    if let Some(name) =
        session.unit.outputs.required.iter().find(|n| made.iter().all(|m| m.name != **n))
    {
        return Err(unknown("missing-output", name));
    }
    if session.parsed.emit.iter().any(|e| e == "link")
        && made.iter().all(|m| m.name.ends_with(".d") || m.name.ends_with(".rmeta"))
    {
        return Err(unknown("missing-output", "the linked file"));
    }
    let dep_info = dep_info(session, compiled)?;
    let out_dir = session.unit.out_dir.clone();
    session.memo.probe(&out_dir);
    let list = linker_list(compiled)?;
    let names: Vec<String> = made.iter().map(|m| m.name.clone()).collect();
    let classes = Classes::open(session.dir);
    let run = run(session, compiled, (&dep_info, &list), &names, &classes);
    let mut inputs = inputs::find(&run)?;
    let (outputs, offers) = describe_outputs(session, &made, &mut inputs)?;
    Ok((inputs, outputs, offers))
}

/// The input set of a compile that was refused. It leaves nothing, as a hit will: dep-info, which the
/// compiler writes before it looks at types, is taken away.
fn refusal(session: &Session<'_>, compiled: &Compiled<'_>) -> Result<Inputs, Unknown> {
    let made = outputs::collect(&session.unit, compiled.started_ns);
    let made = match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        made => made.map_err(|error| unknown("unreadable-output", error))?,
    };
    let (notes, left): (Vec<&Made>, Vec<&Made>) = made.iter().partition(|m| m.name.ends_with(".d"));
    if let Some(file) = left.first() {
        return Err(unknown("failure-left-output", &file.name));
    }
    if session.unit.out_dir.is_dir() != session.had_out_dir {
        return Err(unknown("failure-left-output", "the output directory"));
    }
    // One in the output directory may be of an earlier run.
    let asked = session.parsed.emit.iter().any(|kind| kind == "dep-info");
    let dep_info = match asked && notes.is_empty() {
        true => String::new(),
        false => dep_info(session, compiled).unwrap_or_default(),
    };
    let classes = Classes::open(session.dir);
    let run = run(session, compiled, (&dep_info, ""), &[], &classes);
    let mut inputs = inputs::find_of_failure(&run)?;
    if !session.unit.remapped {
        for root in session.roots.iter() {
            inputs.members.insert(Member::Root(root.name.to_owned()));
            inputs.pinned.push(format!("<{}>", root.name));
        }
    }
    for file in notes {
        std::fs::remove_file(&file.path).map_err(|error| unknown("unreadable-output", error))?;
    }
    Ok(inputs)
}

/// How paths are written in what the tool prints.
pub fn escape(session: &Session<'_>) -> Escape {
    if session.parsed.is_json() { Escape::Json } else { Escape::Plain }
}

fn dep_info(session: &Session<'_>, compiled: &Compiled<'_>) -> Result<String, Unknown> {
    let own = session.unit.outputs.required.iter().find(|n| n.ends_with(".d"));
    let path = match own {
        Some(name) => session.unit.out_dir.join(name),
        None => compiled.private.join(crate::wrapper::DEP_INFO),
    };
    std::fs::read_to_string(path).map_err(|error| unknown("no-dep-info", error))
}

fn linker_list(compiled: &Compiled<'_>) -> Result<String, Unknown> {
    if compiled.link.is_none() {
        return Ok(String::new());
    }
    let list = compiled.private.join(crate::wrapper::LINK_LIST);
    std::fs::read_to_string(list).map_err(|error| unknown("no-linker-list", error))
}

/// The run of the tool, with its dep-info and the linker's list, and the names of its outputs.
fn run<'a>(
    session: &'a Session<'_>,
    compiled: &'a Compiled<'_>,
    (dep_info, list): (&'a str, &'a str),
    outputs: &'a [String],
    classes: &'a Classes,
) -> Run<'a> {
    Run {
        parsed: &session.parsed,
        tool: &session.tool,
        roots: &session.roots,
        env: session.env,
        cwd: &session.cwd,
        out_dir: &session.unit.out_dir,
        clippy: session.unit.clippy,
        source: session.source.as_ref(),
        dep_info,
        link: compiled.link.map(|plan| (plan.members.as_slice(), list)),
        outputs,
        names: &session.unit.outputs,
        private: compiled.private,
        seen: compiled.seen,
        known: (classes, &session.memo),
        started_ns: compiled.started_ns,
    }
}

/// The places of all roots, as they are named and as the file system knows them.
pub(crate) fn places<'a>(engine: &'a Engine<'_>) -> Vec<(&'a str, String)> {
    let mut places = Vec::new();
    for root in engine.roots.iter() {
        places.push((root.name, root.path.clone()));
        let real = std::fs::canonicalize(&root.path).ok();
        let real = real.and_then(|p| p.into_os_string().into_string().ok());
        places.extend(real.filter(|real| *real != root.path).map(|real| (root.name, real)));
    }
    places
}

/// Hashes the outputs and looks for places of roots in them; one that is found pins the result.
fn describe_outputs(
    session: &Session<'_>,
    made: &[Made],
    inputs: &mut Inputs,
) -> Result<(Vec<Output>, Vec<Offer>), Unknown> {
    let roots = places(session);
    let needles = Needles::new(roots.iter().map(|(_, path)| path.as_bytes()));
    let mut pinned = vec![!session.unit.remapped; roots.len()];
    let (mut described, mut offers) = (Vec::new(), Vec::new());
    for file in made {
        let unreadable = |error| unknown("unreadable-output", error);
        let content = if file.name.ends_with(".d") {
            let text = std::fs::read_to_string(&file.path).map_err(unreadable)?;
            let template = session.roots.template(&text, Escape::DepInfo);
            Content::Text(template.ok_or_else(|| unknown("odd-output", "control character"))?)
        } else {
            let Scanned { digest, size, found, .. } =
                hash(session, &file.path, &needles).map_err(unreadable)?;
            pinned.iter_mut().zip(found).for_each(|(pinned, found)| *pinned |= found);
            let path = file.path.to_str().ok_or_else(|| unknown("non-utf8-path", &file.name))?;
            offers.push(Offer { digest, path: path.to_owned() });
            Content::Blob { digest, size }
        };
        described.push(Output {
            name: file.name.clone(),
            executable: file.executable,
            mode: None,
            content,
        });
    }
    for ((name, _), _) in roots.iter().zip(&pinned).filter(|(_, pinned)| **pinned) {
        if inputs.members.insert(Member::Root((*name).to_owned())) {
            inputs.pinned.push(format!("<{name}>"));
        }
    }
    Ok((described, offers))
}

/// What an output holds, which is noted in the memo, and which needles are in it.
///
/// # Errors
/// What reading fails with.
pub(crate) fn hash(
    engine: &Engine<'_>,
    path: &Path,
    needles: &Needles<'_>,
) -> std::io::Result<Scanned> {
    let before = std::fs::metadata(path)?;
    let from_ns = crate::stamp::coarse_now_ns();
    let scanned = outputs::hash_and_scan(path, before.len(), needles)?;
    let after = std::fs::metadata(path)?;
    if crate::stamp::stamp(&before) == crate::stamp::stamp(&after) {
        engine.memo.put(&after, from_ns, &scanned.digest);
    }
    Ok(scanned)
}

/// The values of all members; refused when one has none or changed while the tool ran.
///
/// # Errors
/// Which one.
pub(crate) fn evaluate(
    engine: &Engine<'_>,
    members: &[Member],
    started_ns: i128,
) -> Result<Vec<Digest>, Unknown> {
    let mut evaluator = engine.evaluator();
    let mut values = Vec::with_capacity(members.len());
    for member in members {
        let value = evaluator.value(member);
        values
            .push(value.ok_or_else(|| unknown("unknown-input", crate::lookup::describe(member)))?);
        if evaluator.newest_ns() >= started_ns {
            return Err(unknown("input-changed-meanwhile", crate::lookup::describe(member)));
        }
    }
    match moved(engine, members, started_ns) {
        Some(path) => Err(unknown("input-changed-meanwhile", path.display())),
        None => Ok(values),
    }
}

/// How much a change of what has some path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counts {
    /// It is on the way to an input: a link that was changed may have led elsewhere.
    Link,
    /// It is an input. A directory is one as such, whatever happens in it.
    Input,
    /// A directory below the workspace or the package, with an input in it.
    Directory,
}

/// A link or directory on the way to an input that changed while the tool ran: then what is there now
/// may not be what was read. Links are looked at wherever they are, directories below the workspace and
/// the package; in a target directory they change all the time.
fn moved(engine: &Engine<'_>, members: &[Member], started_ns: i128) -> Option<PathBuf> {
    let mut places = QuickMap::<String, Counts>::default();
    for member in members {
        let (Member::File(token)
        | Member::Listing(token)
        | Member::Link(token)
        | Member::Place(token)
        | Member::Resolved(token)
        | Member::Mode(token)) = member
        else {
            continue;
        };
        let path = engine.roots.resolve(&token.0)?.into_os_string().into_string().ok()?;
        let root = ["<workspace>", "<package>"].into_iter().find(|root| token.0.starts_with(root));
        let root = root.and_then(|root| engine.roots.place(root.trim_matches(['<', '>'])));
        note_way(&mut places, &path, root, matches!(member, Member::File(_)));
    }
    let changed = places.iter().filter(|(place, counts)| has_changed(place, **counts, started_ns));
    let first = changed.min_by_key(|(place, counts)| (**counts == Counts::Link, *place));
    first.map(|(place, _)| PathBuf::from(place))
}

/// Whether what has a path changed, as far as that says something.
fn has_changed(place: &str, counts: Counts, started_ns: i128) -> bool {
    std::fs::symlink_metadata(place).is_ok_and(|meta| {
        let says = match counts {
            Counts::Link => meta.is_symlink(),
            Counts::Input => !meta.is_dir(),
            Counts::Directory => true,
        };
        says && crate::stamp::changed_ns(&meta) >= started_ns
    })
}

/// Notes an input and the directories above it, each with what a change of it says.
fn note_way(
    places: &mut QuickMap<String, Counts>,
    path: &str,
    root: Option<&str>,
    is_content: bool,
) {
    let below = |dir: &str| {
        let inner = root.and_then(|root| dir.strip_prefix(root));
        inner.is_some_and(|inner| inner.starts_with('/'))
    };
    let mut at = path;
    let mut counts = if is_content { Counts::Input } else { Counts::Link };
    loop {
        match places.get_mut(at) {
            // Then what lies above it is there, too.
            Some(known) if *known >= counts => return,
            Some(known) => *known = counts,
            None => drop(places.insert(at.to_owned(), counts)),
        }
        match at.rsplit_once('/') {
            Some((above, _)) if !above.is_empty() => at = above,
            _ => return,
        }
        counts = if is_content && below(at) { Counts::Directory } else { Counts::Link };
    }
}

/// Hands a record over to the server; its key.
///
/// # Errors
/// Why the server does not have it.
pub(crate) fn hand_over(
    engine: &mut Engine<'_>,
    record: Record,
    offers: Vec<Offer>,
) -> Result<ResultKey, Unknown> {
    let key = record.result_key;
    let request = PublishRequest { record, offers, replace: engine.config.mode == Mode::Refresh };
    send(engine, &request).map_err(|error| match error {
        ClientError::Refused(QUARANTINED_STATUS, why) => unknown("quarantined", why),
        error => unknown("publish-failed", error),
    })?;
    Ok(key)
}

fn send(engine: &mut Engine<'_>, request: &PublishRequest) -> Result<(), ClientError> {
    let client = engine.connect()?;
    if !client.is_local() {
        upload(client, request)?;
    }
    let offers = if client.is_local() { request.offers.clone() } else { Vec::new() };
    let path = format!("/v1/results/{}", request.record.result_key);
    let request = PublishRequest { offers, ..request.clone() };
    let body = serde_json::to_vec(&request).map_err(|_| ClientError::Foreign("the question"))?;
    let sent = client.request("PUT", &path, &body, limits::PUBLISH_TIMEOUT);
    if sent.is_err() {
        engine.client = None;
    }
    sent.map(drop)
}

/// Sends the blobs that a server elsewhere does not have.
fn upload(client: &mut Client, request: &PublishRequest) -> Result<(), ClientError> {
    let blobs = request.offers.iter().map(|offer| offer.digest).collect();
    let missing: MissingRequest = client.json(
        "POST",
        "/v1/blobs/missing",
        &MissingRequest { blobs },
        limits::LOOKUP_TIMEOUT,
    )?;
    for offer in request.offers.iter().filter(|o| missing.blobs.contains(&o.digest)) {
        let mut file = std::fs::File::open(&offer.path)?;
        let size = file.metadata()?.len();
        let path = format!("/v1/blobs/{}", offer.digest);
        client.upload(&path, size, &mut file, crate::limits::BLOB_TIMEOUT)?;
    }
    Ok(())
}
