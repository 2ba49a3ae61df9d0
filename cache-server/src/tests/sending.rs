//! Sending what was made here, and fetching ahead what a job used.

use std::sync::Arc;
use std::time::Duration;

use kiln_storage::api::{Event, EventsRequest, LookupRequest, Outcome, RunAbout};
use kiln_storage::record::Record;
use kiln_storage::testing::remote::{MemoryRemote, RemoteFault};
use kiln_storage::{Digest, Remote as _};

use super::remote::{edge, remote, scope};
use super::{Fixture, read, record};
use crate::remote::{outbox, unsent};

pub(super) const LONG: Duration = Duration::from_secs(30);

async fn drain(fixture: &Fixture) -> bool {
    fixture.service.queue.drain().await;
    outbox::drain(&fixture.service, LONG, LONG).await
}

async fn status(fixture: &Fixture) -> kiln_storage::api::RemoteStatus {
    crate::remote::status(&fixture.service).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_is_made_here_is_sent() {
    let remote = remote(&[]);
    let fixture = edge(&remote);
    let (a, _) = fixture.publish("a").await;
    assert!(drain(&fixture).await);
    let names = remote.names();
    assert_eq!((names.len(), names[0].result, names[0].generation), (1, a.result_key, 0));
    let found = remote.lookup(&[scope()], &[a.unit_key]).await.unwrap();
    assert_eq!(found[0].record, a);
    let status = status(&fixture).await;
    assert_eq!((status.sent, status.queued, status.lost), (1, 0, 0));
    // What is here already is not sent again, nor is what came from there.
    fixture.publish("a").await;
    assert!(drain(&fixture).await);
    let other = super::remote::remote(&["a"]);
    let second = edge(&other);
    second.ask(&a, &[]).await;
    second.publish("a").await;
    assert!(drain(&second).await);
    assert_eq!(remote.calls().stores, 1);
}

/// A result that lies afar and was not here in time is compiled, and not sent where it is already; unless
/// it is to be replaced.
#[tokio::test]
async fn what_is_there_is_sent_only_to_replace_it() {
    let remote = remote(&["a"]);
    let fixture = edge(&remote);
    let a = record("a");
    assert_eq!(fixture.ask(&a, &[]).await.absent, [a.result_key]);
    assert_eq!(fixture.publish("a").await.1.status(), 202);
    assert!(fixture.ask(&a, &[]).await.absent.is_empty());
    assert!(drain(&fixture).await);
    assert_eq!((remote.calls().stores, remote.names()[0].generation), (0, 0));

    let second = edge(&remote);
    second.ask(&a, &[]).await;
    let path = second.dir.path().join("a");
    std::fs::write(&path, "a").unwrap();
    let request = kiln_storage::api::PublishRequest {
        record: a.clone(),
        offers: vec![super::offer(Digest::of(b"a"), &path)],
        replace: true,
    };
    let path = format!("/v1/results/{}", a.result_key);
    assert_eq!(second.send("PUT", &path, &request).await.status(), 202);
    assert!(drain(&second).await);
    let names = remote.names();
    assert_eq!((names.len(), names[0].generation), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_sent_stays_and_is_sent_by_the_next_server() {
    let far = remote(&[]);
    far.set_fault(Some(RemoteFault::Unavailable));
    let fixture = edge(&far);
    for unit in ["a", "b", "c"] {
        fixture.publish(unit).await;
    }
    assert!(!drain(&fixture).await);
    let status_now = status(&fixture).await;
    assert_eq!((status_now.queued, status_now.sent), (3, 0));
    assert!(status_now.not_sending.is_some() && status_now.oldest_ms.is_some());
    assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());

    // The blobs are in a memory that ends with the server: it is handed on.
    let Fixture { dir, backend, service } = fixture;
    drop(service);
    far.set_fault(None);
    let next = Fixture::with(dir, Some(far.clone()), |_| {});
    for unit in ["a", "b", "c"] {
        let name = kiln_storage::ObjectName::blob(&Digest::of(unit.as_bytes()));
        copy(&backend.inner, &next, &name).await;
    }
    use futures_util::StreamExt as _;
    use kiln_storage::Backend as _;
    let mut records = backend.inner.list("records/");
    while let Some(listed) = records.next().await {
        copy(&backend.inner, &next, &listed.unwrap().name).await;
    }
    assert!(drain(&next).await);
    assert_eq!(far.names().len(), 3);
}

async fn copy(from: &kiln_storage::MemoryBackend, to: &Fixture, name: &kiln_storage::ObjectName) {
    use kiln_storage::Backend as _;
    let body = from.get(name).await.unwrap().unwrap();
    to.backend.inner.put_if_absent(name, body).await.unwrap();
}

#[tokio::test]
async fn a_remote_that_takes_no_writes_is_told_once_and_reads_go_on() {
    let remote = remote(&["r"]);
    remote.set_fault(Some(RemoteFault::ReadOnly));
    let fixture = edge(&remote);
    for unit in ["a", "b", "c"] {
        fixture.publish(unit).await;
    }
    assert!(!drain(&fixture).await);
    assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());
    assert!(status(&fixture).await.not_sending.unwrap().contains("takes no results"));
    assert_eq!(fixture.ask(&record("r"), &[]).await.records.len(), 1);
    remote.set_fault(None);
    assert!(drain(&fixture).await);
    assert_eq!(remote.names().len(), 4);
}

#[tokio::test]
async fn what_is_only_collected_is_made_durable_before_the_server_leaves() {
    let remote = remote(&[]);
    remote.set_collects(true);
    let fixture = edge(&remote);
    fixture.publish("a").await;
    fixture.publish("b").await;
    // One that is on its way when the server leaves is made durable by a flush of its own.
    while collected(&fixture).await < 2 {
        tokio::task::yield_now().await;
    }
    assert!(drain(&fixture).await);
    assert_eq!(remote.calls().flushes, 1);
    assert_eq!((status(&fixture).await.sent, status(&fixture).await.queued), (2, 0));
}

/// A flush that fails is tried again for a moment; then what is collected stays queued.
#[tokio::test]
async fn what_cannot_be_made_durable_stays_queued() {
    let remote = remote(&[]);
    remote.set_collects(true);
    let fixture = edge(&remote);
    fixture.publish("a").await;
    fixture.service.queue.drain().await;
    while remote.calls().stores == 0 || collected(&fixture).await == 0 {
        tokio::task::yield_now().await;
    }
    remote.set_fault(Some(RemoteFault::Unavailable));
    assert!(!drain(&fixture).await);
    assert_eq!(remote.calls().flushes, u64::from(crate::limits::REMOTE_FAULTS));
    assert_eq!((status(&fixture).await.sent, status(&fixture).await.queued), (0, 1));
    remote.set_fault(None);
    assert!(drain(&fixture).await);
    assert_eq!((status(&fixture).await.sent, status(&fixture).await.queued), (1, 0));
    assert_eq!(remote.calls().stores, 1);
}

async fn collected(fixture: &Fixture) -> usize {
    fixture.service.index.read(crate::index::outbox::collected).await.unwrap().len()
}

#[tokio::test]
async fn a_server_that_only_reads_sends_nothing() {
    let remote = remote(&[]);
    let fixture = Fixture::with(tempfile::tempdir().unwrap(), Some(remote.clone()), |config| {
        config.remote.sends = false;
    });
    fixture.backend.gate.add_permits(10);
    fixture.publish("a").await;
    fixture.lookup(&record("a")).await;
    drain(&fixture).await;
    let calls = remote.calls();
    assert_eq!((calls.stores, calls.put_notes, status(&fixture).await.queued), (0, 0, 0));
}

/// A blob that vanished here is no reason to try for ever.
#[tokio::test]
async fn what_is_gone_here_is_given_up_and_told() {
    let remote = remote(&[]);
    remote.set_fault(Some(RemoteFault::Unavailable));
    let fixture = edge(&remote);
    fixture.publish("a").await;
    assert!(!drain(&fixture).await);
    fixture.service.store.delete_blob(&Digest::of(b"a")).await.unwrap();
    remote.set_fault(None);
    assert!(drain(&fixture).await);
    let status = status(&fixture).await;
    assert_eq!((status.lost, status.queued, status.sent), (1, 0, 0));
    assert!(status.lost_why.unwrap().contains("gone"));
}

#[tokio::test]
async fn what_waits_to_be_sent_is_not_evicted() {
    let far = remote(&[]);
    far.set_fault(Some(RemoteFault::Unavailable));
    let fixture = Fixture::with(tempfile::tempdir().unwrap(), Some(far.clone()), |config| {
        config.cache_size = Some(1);
    });
    fixture.backend.gate.add_permits(10);
    fixture.publish("a").await;
    assert!(!drain(&fixture).await);
    crate::evict::once(&fixture.service).await.unwrap();
    assert_eq!(fixture.lookup(&record("a")).await.len(), 1);
    far.set_fault(None);
    assert!(drain(&fixture).await);
    crate::evict::once(&fixture.service).await.unwrap();
    fixture
        .service
        .index
        .read(|index| {
            let (results, ..) = crate::index::records::sizes(index)?;
            assert_eq!(results, 0);
            Ok(())
        })
        .await
        .unwrap();
}

fn used(record: &Record, job: &str) -> Event {
    let mut event = crate::tally::tests::event(&record.result_key.to_string(), "b", Outcome::Miss);
    event.job = job.to_owned();
    event.unit_key = Some(record.unit_key);
    event.result_key = Some(record.result_key);
    event
}

async fn ask(fixture: &Fixture, record: &Record, job: &str) -> kiln_storage::api::LookupResponse {
    let units = vec![record.unit_key];
    let job = Some(job.to_owned());
    fixture.ask_for(LookupRequest { units, job, ..LookupRequest::default() }).await
}

/// What jobs of one name use is kept apart by their repositories.
#[tokio::test]
async fn jobs_of_other_repositories_are_other_jobs() {
    let far = Arc::new(MemoryRemote::default());
    let first = edge(&far);
    let of = |repository: &str| {
        let about = RunAbout { repository: repository.into(), ..RunAbout::default() };
        Event { about: Some(about), ..used(&record("unit"), "job") }
    };
    let (ours, theirs) = (of("acme/rocket"), of("acme/other"));
    ask(&first, &record("unit"), &ours.lasting_job()).await;
    ask(&first, &record("unit"), &theirs.lasting_job()).await;
    first.publish("unit").await;
    let events = EventsRequest { events: vec![ours.clone()] };
    assert_eq!(first.send("POST", "/v1/events", &events).await.status(), 204);
    assert!(drain(&first).await);
    assert_eq!(far.calls().put_notes, 1);

    let lookups = far.calls().lookups;
    ask(&edge(&far), &record("unit"), &ours.lasting_job()).await;
    assert_eq!(far.calls().lookups, lookups);
    ask(&edge(&far), &record("unit"), &theirs.lasting_job()).await;
    assert_eq!(far.calls().lookups, lookups + 1);
}

/// What a first machine made for a job is here on a second one before it is asked for, in the order it was
/// used, with two questions for all records: for those that are needed first, and for the others.
#[tokio::test]
async fn a_job_finds_what_it_used_last_time() {
    let units: Vec<String> = (0..20).map(|n| format!("unit {n}")).collect();
    let far = Arc::new(MemoryRemote::default());
    let first = edge(&far);
    for unit in &units {
        ask(&first, &record(unit), "job").await;
        first.publish(unit).await;
        let events = EventsRequest { events: vec![used(&record(unit), "job")] };
        assert_eq!(first.send("POST", "/v1/events", &events).await.status(), 204);
    }
    assert!(drain(&first).await);
    let before = far.calls();
    assert_eq!((before.put_notes, before.stores), (1, 20));

    let second = edge(&far);
    ask(&second, &record(&units[0]), "job").await;
    // What is asked for before it came, and was counted, is not fetched ahead.
    let bytes: u64 = units.iter().map(|unit| unit.len() as u64).sum();
    for _ in 0..1000 {
        if status(&second).await.ahead_bytes == bytes {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for unit in &units {
        let answer = ask(&second, &record(unit), "job").await;
        assert_eq!(answer.records.len(), 1);
        assert_eq!(answer.arrived.len(), 1);
        let path = format!("/v1/results/{}/bring", record(unit).result_key);
        let body = kiln_storage::api::BringRequest { within_ms: 20_000 };
        assert_eq!(second.send("POST", &path, &body).await.status(), 204);
        let hit = Event { outcome: Outcome::HitRemote, ..used(&record(unit), "job") };
        let events = EventsRequest { events: vec![hit] };
        second.send("POST", "/v1/events", &events).await;
    }
    let after = far.calls();
    assert_eq!(after.lookups - before.lookups, 0);
    assert_eq!((after.results, after.notes - before.notes, after.blobs), (2, 1, 20));
    let want: Vec<Digest> = units.iter().map(|unit| Digest::of(unit.as_bytes())).collect();
    assert_eq!(far.order()[..3], want[..3]);
    let status = status(&second).await;
    assert_eq!(status.ahead_used_bytes, status.ahead_bytes);
    assert_eq!(status.ahead_bytes, bytes);

    // Another job has no note, and asks for itself.
    let third = edge(&far);
    ask(&third, &record("unit 3"), "other").await;
    assert_eq!(far.calls().lookups - after.lookups, 1);
}

#[tokio::test]
async fn notes_are_kept_by_scope_and_bounded() {
    let fixture = Fixture::new();
    let get = async |name: &str| fixture.send("GET", &format!("/v1/notes/{name}"), &()).await;
    assert_eq!(get("ahead-1").await.status(), 404);
    for text in ["one", "two"] {
        assert_eq!(fixture.send("PUT", "/v1/notes/ahead-1", &text).await.status(), 204);
    }
    assert_eq!(read::<String>(get("ahead-1").await).await, "two");
    let long = "x".repeat(kiln_storage::limits::MAX_NOTE_BYTES);
    assert_eq!(fixture.send("PUT", "/v1/notes/ahead-1", &long).await.status(), 413);
    for bad in ["A", "a_b", "a.b", &"x".repeat(100)] {
        assert_eq!(get(bad).await.status(), 400, "{bad}");
    }
}

/// What waited in an index that was thrown away is told as lost, with the number where that is known.
#[tokio::test]
async fn what_waited_in_a_lost_index_is_told() {
    for (unsent, lost, said) in [
        (Some(0), 0, None),
        (Some(1), 1, Some("1 result is never sent: the index in which results waited")),
        (Some(2), 2, Some("2 results are never sent: the index in which results waited")),
        (None, 0, Some("an index was thrown away: if results waited")),
    ] {
        let fixture = edge(&remote(&[]));
        unsent::tell(&fixture.service, unsent);
        let status = status(&fixture).await;
        assert_eq!((status.lost, status.lost_why.is_some()), (lost, said.is_some()));
        let told = fixture.told();
        assert_eq!(told.len(), usize::from(said.is_some()), "{told:?}");
        assert!(said.is_none_or(|said| told[0].contains(said)), "{told:?}");
    }
}
