//! The runs before one, where jobs share a bucket and each server has seen its own only: a note there names the newest
//! runs of a workflow, and before a report the last ones of its branches are brought, so that there is something to
//! hold it against.
//!
//! Only reports depend on it: a note that is lost, or that two servers write at once, costs a report the runs that it
//! would have named. The cache of GitHub Actions keeps notes with results only, and a run that has nothing but hits
//! would write none: there each server knows its own runs, and the report says so.

use bytes::Bytes;
use kiln_storage::StoreError;
use kiln_storage::api::report::EarlierRuns;
use kiln_storage::api::{RunAbout, bounded_name};
use kiln_storage::encode::Encoder;
use kiln_storage::limits::MAX_RUN_BYTES;
use kiln_storage::remote::events::{EventBatch, KeepsEvents};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Edge, Side, events};
use crate::clock;
use crate::history::read::{self, RunRow};
use crate::limits::{
    CLOCK_AHEAD_MS, EARLIER_RUNS, EARLIER_WITHIN, EVENTS_BROUGHT_AGAIN, MAX_NOTED_OF_BRANCH,
    MAX_NOTED_RUNS,
};
use crate::service::Service;

/// Version of what is noted; another one is not read.
const VERSION: u32 = 1;

/// The newest runs of a workflow, the one that began last first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    version: u32,
    runs: Vec<NotedRun>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NotedRun {
    run: String,
    branch: String,
    /// When its first unit ended, by the clock of that machine.
    first_ms: u64,
}

impl Noted {
    /// What a note says at a time; what is none says nothing, and no run began in days to come.
    fn parse(text: &[u8], now_ms: u64) -> Self {
        let read = serde_json::from_slice::<Self>(text).ok();
        let mut noted = read.filter(|noted| noted.version == VERSION).unwrap_or_default();
        let latest_ms = now_ms.saturating_add(CLOCK_AHEAD_MS);
        noted.runs.retain(|run| run.first_ms <= latest_ms);
        noted.runs.truncate(MAX_NOTED_RUNS);
        noted
    }

    /// The same with a run more; none: it is there.
    fn with(mut self, run: NotedRun) -> Option<Self> {
        if self.runs.iter().any(|known| known.run == run.run) {
            return None;
        }
        let branch = run.branch.clone();
        self.runs.push(run);
        self.runs.sort_by_key(|run| std::cmp::Reverse(run.first_ms));
        let mut of_branch = 0;
        self.runs.retain(|run| {
            of_branch += usize::from(run.branch == branch);
            run.branch != branch || of_branch <= MAX_NOTED_OF_BRANCH
        });
        self.runs.truncate(MAX_NOTED_RUNS);
        Some(Self { version: VERSION, ..self })
    }

    /// The runs to hold one against: the last of its base branch, and the last of its own.
    fn before(&self, about: &RunAbout, run: &str, first_ms: u64) -> Vec<String> {
        let earlier = |branch: &str| {
            let branch = branch.to_owned();
            let runs = self.runs.iter().filter(move |one| one.branch == branch);
            runs.filter(|one| one.run != run && one.first_ms <= first_ms).map(|one| &one.run)
        };
        let bases = earlier(&about.base).take(EARLIER_RUNS - 1);
        let mut names: Vec<String> = Vec::new();
        for name in bases.chain(earlier(&about.branch)) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names.truncate(EARLIER_RUNS);
        names
    }
}

/// What the note of a workflow is called.
fn note_name(about: &RunAbout) -> String {
    let mut encoder = Encoder::new("kiln runs v1");
    encoder.text("repository", &about.repository).text("workflow", &about.workflow);
    format!("runs-{}", &encoder.finish().to_string()[..32])
}

/// Names the run of some events that were sent, once.
pub(super) async fn note(service: &Service, edge: &Edge, batch: &EventBatch) {
    let about = batch.events.iter().find_map(|event| event.about.as_ref());
    let Some(about) = about.filter(|about| !about.branch.is_empty()) else { return };
    if edge.remote.keeps_events() != KeepsEvents::AsObjects || !edge.events.is_first(&batch.run) {
        return;
    }
    let run = NotedRun {
        run: bounded_name(&batch.run, MAX_RUN_BYTES),
        branch: about.branch.clone(),
        first_ms: batch.events.iter().map(|event| event.at_ms).min().unwrap_or_default(),
    };
    let (scope, name, now_ms) = (edge.own_scope(), note_name(about), clock::now_ms());
    let add = async {
        let there = edge.remote.note(std::slice::from_ref(&scope), &name).await?;
        let Some(noted) = Noted::parse(&there.unwrap_or_default(), now_ms).with(run) else {
            return Ok(());
        };
        let text = serde_json::to_vec(&noted)
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        edge.remote.put_note(&scope, &name, Bytes::from(text)).await
    };
    match timeout(EARLIER_WITHIN, add).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => service.log.debug(format_args!("note of runs: {error}")),
        Err(_) => service.log.debug(format_args!("note of runs: it is not taken in time")),
    }
}

/// Which runs a run can be held against.
pub(crate) fn known(service: &Service, about: &RunAbout) -> EarlierRuns {
    let keeps = service.edge.as_ref().map(|edge| edge.remote.keeps_events());
    match keeps {
        None => EarlierRuns::All,
        // The run of no service is of this machine.
        Some(_) if *about == RunAbout::default() => EarlierRuns::All,
        Some(KeepsEvents::AsObjects) if !about.branch.is_empty() => EarlierRuns::Newest,
        Some(_) => EarlierRuns::Own,
    }
}

/// Brings the runs that came before one, those that were not looked for a moment ago.
pub(crate) async fn bring(service: &Service, scope: &str, run: &str) {
    let (of, name) = (scope.to_owned(), run.to_owned());
    let found = service.history.read(move |rows| read::run(rows, &of, &name)).await;
    let Ok(Some(row)) = found else { return };
    let are_there = known(service, &row.about) == EarlierRuns::Newest;
    let Some(edge) = service.edge.as_ref().filter(|_| are_there) else { return };
    let all = async {
        for name in names(service, edge, &row).await {
            if edge.events.is_due(scope, &name, EVENTS_BROUGHT_AGAIN) {
                events::bring_from(service, edge, (scope, &name)).await;
            }
        }
    };
    if timeout(EARLIER_WITHIN, all).await.is_err() {
        service.log.debug(format_args!("earlier runs: they do not come in time"));
    }
}

/// The runs before a run, as notes of all scopes name them.
async fn names(service: &Service, edge: &Edge, row: &RunRow) -> Vec<String> {
    let (mut noted, now_ms) = (Noted::default(), clock::now_ms());
    for scope in &edge.scopes {
        if !edge.may(Side::Reads) {
            break;
        }
        match edge.remote.note(std::slice::from_ref(scope), &note_name(&row.about)).await {
            Ok(text) => noted.runs.extend(Noted::parse(&text.unwrap_or_default(), now_ms).runs),
            Err(error) => {
                let (kind, why) = super::kind_of(&error);
                edge.fault(&service.log, Side::Reads, kind, &why);
            }
        }
    }
    noted.runs.sort_by_key(|run| std::cmp::Reverse(run.first_ms));
    noted.before(&row.about, &row.run, row.first_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, branch: &str, first_ms: u64) -> NotedRun {
        NotedRun { run: name.into(), branch: branch.into(), first_ms }
    }

    fn noted(runs: &[NotedRun]) -> Noted {
        runs.iter().fold(Noted::default(), |noted, run| noted.with(run.clone()).unwrap())
    }

    fn about(branch: &str, base: &str) -> RunAbout {
        RunAbout { branch: branch.into(), base: base.into(), ..RunAbout::default() }
    }

    #[test]
    fn a_run_is_held_against_its_base_and_its_own_branch() {
        let runs: Vec<NotedRun> = (1..9)
            .map(|n| run(&format!("main {n}"), "main", n * 10))
            .chain((1..4).map(|n| run(&format!("topic {n}"), "topic", n * 20)))
            .collect();
        let noted = noted(&runs);
        let read = Noted::parse(&serde_json::to_vec(&noted).unwrap(), 80);
        assert_eq!(read, noted);
        let ahead = noted.clone().with(run("ahead", "main", CLOCK_AHEAD_MS + 100)).unwrap();
        assert_eq!(Noted::parse(&serde_json::to_vec(&ahead).unwrap(), 80), noted);
        let before = |about: RunAbout, run: &str, at| read.before(&about, run, at).join(", ");
        assert_eq!(before(about("topic", "main"), "topic 3", 60), "main 6, main 5, topic 2");
        assert_eq!(before(about("main", ""), "main 8", 80), "main 7, main 6, main 5");
        assert_eq!(before(about("new", "main"), "new 1", 15), "main 1");
        assert_eq!(before(about("new", ""), "new 1", 15), "");
    }

    #[test]
    fn a_note_is_bounded_and_names_each_run_once() {
        let first = noted(&[run("a", "main", 1)]);
        assert_eq!(first.clone().with(run("a", "main", 9)), None);
        let many: Vec<NotedRun> =
            (0..3 * MAX_NOTED_RUNS as u64).map(|n| run(&format!("r{n}"), "main", n)).collect();
        let of_one = noted(&many);
        assert_eq!(of_one.runs.len(), MAX_NOTED_OF_BRANCH);
        assert_eq!(of_one.runs[0].run, format!("r{}", many.len() - 1));
        let branches: Vec<NotedRun> =
            many.iter().map(|one| run(&one.run, &one.run, one.first_ms)).collect();
        assert_eq!(noted(&branches).runs.len(), MAX_NOTED_RUNS);
        for none in [&b""[..], b"{}", b"{\"version\":2,\"runs\":[]}", b"\xff"] {
            assert_eq!(Noted::parse(none, u64::MAX), Noted::default());
        }
        assert!(note_name(&about("a", "")).len() <= kiln_storage::limits::MAX_NOTE_NAME_BYTES);
        assert_eq!(note_name(&about("a", "")), note_name(&about("b", "c")));
    }
}
