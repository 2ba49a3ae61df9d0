//! Asking the server for a unit and checking its answers against this tree.
//!
//! One round trip brings the newest records of the unit, each with its input set and the values
//! that were found when it was made. The members are evaluated here; the record whose values all
//! agree is the answer. Only when there may be more records than were sent, or a place behind the server was
//! not asked, a second question asks for the result that belongs here. A result that holds and whose blobs
//! are still afar is brought to the server first (`bring`). On a miss it is noted in the event
//! what differs from the nearest earlier result.

use std::path::PathBuf;
use std::time::Duration;

use kiln_storage::api::{
    LookupRequest, LookupResponse, NearestRequest, NearestResponse, OVER_LIMIT_STATUS, Outcome,
    RejectRequest,
};
use kiln_storage::record::{Member, Record, Variables, result_key};
use kiln_storage::{ResultKey, limits};

use crate::bring;
use crate::causes::inputs::Nearest;
use crate::causes::{self, Causes};
use crate::client::ClientError;
use crate::engine::Engine;
use crate::members::Evaluator;

/// What a lookup found.
#[derive(Debug)]
pub enum Found {
    /// A record that holds here, and where its blobs are.
    Record(Box<Record>, Place),
    /// Nothing holds here: a word from docs/reasons.md, and more for people.
    Nothing(&'static str, String),
    /// The server cannot be asked.
    Fault(&'static str, String),
}

/// Where the blobs of a record are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The server's disk store, when that is on this machine.
    pub store: Option<PathBuf>,
    /// Whether they came from another machine, now or for this build.
    pub is_afar: bool,
}

/// What a hit is called, for who waited for it or did not.
pub fn outcome(place: &Place, joined: bool) -> Outcome {
    match (joined, place.is_afar) {
        (true, _) => Outcome::Joined,
        (false, true) => Outcome::HitRemote,
        (false, false) => Outcome::HitLocal,
    }
}

/// Looks a unit up.
pub fn lookup(engine: &mut Engine<'_>) -> Found {
    if engine.faults.are_too_many() {
        return Found::Fault("server-left-alone", "it failed repeatedly".into());
    }
    let request = LookupRequest {
        units: vec![engine.named.key],
        job: Some(engine.event.lasting_job()),
        ..LookupRequest::default()
    };
    let response = match ask(engine, &request) {
        Ok(response) => response,
        Err(fault) => return fault,
    };
    engine.faults.clear();
    let nearest_cost = response.records.first().map(|record| record.cost.wall_ms);
    engine.expected = nearest_cost.map(Duration::from_millis);
    let mut evaluator = engine.evaluator();
    let mut first_difference = None;
    for record in &response.records {
        match difference(&mut evaluator, record, engine) {
            None => return bring(engine, record.clone(), &response),
            Some(member) => {
                first_difference.get_or_insert(member);
            }
        }
    }
    let differing = causes::inputs::compare(&mut evaluator, &response.records);
    if let Some(request) = second(&mut evaluator, &request, &response) {
        match again(engine, &request) {
            Ok(Some(found)) => return found,
            Ok(None) => {}
            Err(fault) => return fault,
        }
    }
    engine.differing = response.records;
    let Some(member) = first_difference else {
        let causes = nearest(engine);
        note(engine, causes);
        let of_another = "its results are of another version of Kiln";
        let why = if response.foreign.is_empty() { "" } else { of_another };
        return Found::Nothing("new-unit", why.to_owned());
    };
    let causes = differing.map(|nearest| of_inputs(engine, nearest)).unwrap_or_default();
    note(engine, causes);
    Found::Nothing("input-changed", describe(&member))
}

/// The question after one whose answers do not hold: for results that were left out, and for what is
/// behind the server.
fn second(
    evaluator: &mut Evaluator<'_>,
    first: &LookupRequest,
    response: &LookupResponse,
) -> Option<LookupRequest> {
    let foreign = &response.foreign;
    let full = response.records.len() + foreign.len() >= limits::MAX_RECORDS_PER_UNIT;
    if !full && !response.farther {
        return None;
    }
    // Only where results were left out, here or behind the server, can one of these input sets answer.
    let results = expected(evaluator, &response.records);
    if response.farther || !foreign.is_empty() {
        let known = response.records.iter().map(|record| &record.result_key);
        let known = known.chain(foreign).copied().collect();
        return Some(LookupRequest { results, known, ..first.clone() });
    }
    (!results.is_empty()).then(|| LookupRequest { results, ..LookupRequest::default() })
}

fn note(engine: &mut Engine<'_>, causes: Causes) {
    engine.event.causes = causes.named;
    engine.event.more_causes = causes.more;
}

/// What a unit without records differs in from earlier ones of its crate.
fn nearest(engine: &mut Engine<'_>) -> Causes {
    let answer = ask_nearest(engine, None);
    answer
        .map(|answer| causes::arguments::compare(&engine.named, &answer.units))
        .unwrap_or_default()
}

/// What differs from the nearest result of a unit.
fn of_inputs(engine: &mut Engine<'_>, nearest: Nearest) -> Causes {
    let wanted = nearest.wants_variables();
    let answer = wanted.and_then(|result| ask_nearest(engine, Some(result))).unwrap_or_default();
    nearest.causes(&mut engine.evaluator(), &answer.variables)
}

/// Asks what only an explanation needs. A server that does not tell is no fault: the explanation is poorer.
fn ask_nearest(engine: &mut Engine<'_>, result: Option<ResultKey>) -> Option<NearestResponse> {
    let unit = engine.named.name.clone();
    let request = NearestRequest { unit_key: engine.named.key, unit, result };
    let client = engine.client.as_mut().filter(|client| client.is_alive())?;
    client.json("POST", "/v1/nearest", &request, crate::limits::NEAREST_TIMEOUT).ok()
}

/// A record that holds here, once its blobs are on the server.
fn bring(engine: &mut Engine<'_>, record: Record, response: &LookupResponse) -> Found {
    let key = &record.result_key;
    if response.absent.contains(key)
        && let Err((reason, why)) = bring::bring(engine, &record)
    {
        return Found::Nothing(reason, why);
    }
    let store = response.local_store.clone().map(PathBuf::from);
    let is_afar = store.is_none() || response.arrived.contains(key);
    Found::Record(Box::new(record), Place { store, is_afar })
}

fn ask(engine: &mut Engine<'_>, request: &LookupRequest) -> Result<LookupResponse, Found> {
    let absent = |error: String| Found::Fault("server-absent", error);
    let client = engine.connect().map_err(|error| absent(error.to_string()))?;
    client.lookup(request).map_err(|error| {
        engine.client = None;
        engine.faults.count();
        let reason = match error {
            ClientError::Refused(OVER_LIMIT_STATUS, _) => "over-limit",
            _ => "lookup-failed",
        };
        Found::Fault(reason, error.to_string())
    })
}

/// The first member whose value here is not the record's; none when the record holds here.
fn difference(
    evaluator: &mut Evaluator<'_>,
    record: &Record,
    engine: &Engine<'_>,
) -> Option<Member> {
    let foreign = || Some(Member::Program("a record of another unit".into()));
    if record.unit_key != engine.named.key || record.check().is_err() {
        return foreign();
    }
    let mut pairs = record.members.iter().zip(&record.values);
    pairs.find(|(member, value)| evaluator.value(member) != Some(**value)).map(|(m, _)| m.clone())
}

/// The keys of the results that would hold here, one for each distinct input set.
fn expected(evaluator: &mut Evaluator<'_>, records: &[Record]) -> Vec<ResultKey> {
    let mut keys = Vec::new();
    for (i, record) in records.iter().enumerate() {
        if records[..i].iter().any(|other| other.members == record.members) {
            continue;
        }
        let values: Option<Vec<_>> = record.members.iter().map(|m| evaluator.value(m)).collect();
        keys.extend(values.map(|values| result_key(&record.unit_key, &record.members, &values)));
    }
    keys
}

fn again(engine: &mut Engine<'_>, request: &LookupRequest) -> Result<Option<Found>, Found> {
    let response = ask(engine, request)?;
    let mut evaluator = engine.evaluator();
    let holds = |record: &&Record| difference(&mut evaluator, record, engine).is_none();
    let record = response.records.iter().find(holds).cloned();
    Ok(record.map(|record| bring(engine, record, &response)))
}

/// Tells the server that what a record names is damaged.
pub fn reject(engine: &mut Engine<'_>, record: &Record, reason: &str) {
    let path = format!("/v1/results/{}/reject", record.result_key);
    let body = serde_json::to_vec(&RejectRequest { reason: reason.to_owned() }).unwrap_or_default();
    if let Ok(client) = engine.connect() {
        // The answer is awaited: what is published next must find the damage gone.
        if client.request("POST", &path, &body, limits::LOOKUP_TIMEOUT).is_err() {
            engine.client = None;
        }
    }
}

/// What holds a record at one place.
pub fn pins(record: &Record) -> Vec<String> {
    let root = |member: &Member| match member {
        Member::Root(name) => Some(format!("<{name}>")),
        _ => None,
    };
    record.members.iter().filter_map(root).collect()
}

/// A member for people.
pub fn describe(member: &Member) -> String {
    match member {
        Member::File(path) => format!("file {}", path.0),
        Member::Listing(path) => format!("names in {}", path.0),
        Member::Tree(path, _) => format!("files below {}", path.0),
        Member::Env(name, _) => format!("variable {name}"),
        Member::Mode(path) => format!("mode of {}", path.0),
        Member::Program(name) => format!("program {name}"),
        Member::Upward(path, names) => format!("{} above {}", names.join(" or "), path.0),
        Member::Root(name) => format!("place of <{name}>"),
        Member::DiagnosticWidth => "width of diagnostics".to_owned(),
        Member::Processor => "processor".to_owned(),
        Member::Link(path) => format!("link {}", path.0),
        Member::Place(path) | Member::Resolved(path) => format!("place of {}", path.0),
        Member::Environment(Variables::All) => "all variables".to_owned(),
        Member::Environment(Variables::Lasting) => "variables that a macro may read".to_owned(),
    }
}
