//! What a job may do in the GitHub Actions cache, by its token and its workflow, and that nothing of these is shown.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use crate::gha_support::{
    Face, MAIN, MINUTE, found, job, local, scope, settings, some, store, store_all,
};
use kiln_storage::StoreError;
use kiln_storage::remote::Remote;
use kiln_storage::remote::gha::GhaRemote;
use kiln_storage::remote::gha::settings::{Mode, Runner, Secret};
use kiln_storage::remote::gha::token::Refs;
use kiln_storage::testing::gha::{Behaviour, FakeCache, READ, READ_WRITE, WRITE, token};

const PULL_1: &str = "refs/pull/1/merge";

#[tokio::test]
async fn a_token_that_may_not_write_is_told_once_and_what_is_lost_too() {
    for face in [Face::V2, Face::V1] {
        let fake = FakeCache::start(Behaviour::default()).await;
        store_all(&job(&fake), &some(0..2)).await;
        let reader = GhaRemote::new(settings(&fake, face, &[(MAIN, READ)])).unwrap();
        let more = some(2..4);
        store(&reader, &more).await;
        let flushed = reader.flush(MINUTE).await.unwrap();
        assert_eq!(flushed.stored, 0);
        let lost: Vec<_> = flushed.lost.iter().map(|(name, _)| name.result).collect();
        assert!(more.iter().all(|made| lost.contains(&made.name.result)));
        assert_eq!(flushed.lost[0].1, "the token may not write here");
        assert_eq!(reader.collected(), 0);
        let before = fake.counted();
        let error = reader.store(&more[0].name, &more[0].record, &local(&more).await).await;
        assert!(matches!(error, Err(StoreError::ReadOnly(why)) if why.contains("may not write")));
        let error = reader.put_note(&scope(MAIN), "x", "y".into()).await;
        assert!(matches!(error, Err(StoreError::ReadOnly(_))));
        assert_eq!(fake.counted(), before, "it was not asked again");
        assert_eq!(found(&reader, &[scope(MAIN)], &some(0..2)).await, 2, "it reads");
    }
}

#[tokio::test]
async fn the_mode_of_the_workflow_is_kept() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..2);
    store_all(&job(&fake), &results).await;
    for (mode, reads) in [(Mode::Read, 2), (Mode::WriteOnly, 0), (Mode::None, 0)] {
        let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
        settings.mode = mode;
        let remote = GhaRemote::new(settings).unwrap();
        let before = fake.counted();
        let more = some(5..6);
        let error = remote.store(&more[0].name, &more[0].record, &local(&more).await).await;
        assert!(matches!(error, Err(StoreError::ReadOnly(why)) if why.contains("cache mode")));
        assert_eq!(found(&remote, &[scope(MAIN)], &results).await, reads, "{mode:?}");
        assert_eq!(fake.counted() == before, reads == 0, "nothing is asked in vain");
    }
}

#[tokio::test]
async fn the_refs_of_a_token_are_the_scopes_to_look_through() {
    let fake = FakeCache::start(Behaviour::default()).await;
    store_all(&job(&fake), &some(0..2)).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ), (PULL_1, READ_WRITE)]);
    let refs = Refs::of(&settings.token).unwrap();
    assert_eq!(refs.own.as_deref(), Some(PULL_1));
    settings.scopes = refs.read.iter().map(|reference| scope(reference)).collect();
    assert_eq!(settings.scopes, [scope(PULL_1), scope(MAIN)]);
    let scopes = settings.scopes.clone();
    let pull = GhaRemote::new(settings).unwrap();
    assert_eq!(found(&pull, &scopes, &some(0..2)).await, 2);
}

/// What a token writes where it does not read, no index could name.
#[tokio::test]
async fn a_token_that_writes_where_it_does_not_read_writes_nothing() {
    let fake = FakeCache::start(Behaviour::default()).await;
    store_all(&job(&fake), &some(0..2)).await;
    let rights: [&[(&str, u8)]; 2] = [&[(MAIN, WRITE)], &[(PULL_1, WRITE), (MAIN, READ)]];
    for (rights, reads) in rights.into_iter().zip([0, 2]) {
        let runner = Runner {
            results_url: Some(fake.results_url()),
            token: Some(Secret::new(token(rights))),
            ..Runner::default()
        };
        let mut settings = runner.settings().unwrap();
        settings.clock = Arc::new(fake.clock());
        let remote = GhaRemote::new(settings).unwrap();
        let more = some(5..6);
        let error = remote.store(&more[0].name, &more[0].record, &local(&more).await).await;
        let said = |why: &str| why.contains("may only write where it may not read");
        assert!(matches!(&error, Err(StoreError::ReadOnly(why)) if said(why)), "{error:?}");
        assert_eq!(found(&remote, &[scope(MAIN)], &some(0..2)).await, reads, "{rights:?}");
        assert_eq!(fake.counted().reserved, 2, "{rights:?}");
    }
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    let remote = GhaRemote::new(settings.clone()).unwrap();
    store_all(&remote, &some(0..2)).await;
    assert_eq!(found(&remote, &[scope(MAIN)], &some(0..2)).await, 2);
    let shown = format!("{settings:?} {remote:?} {}", remote.display());
    let secret = kiln_storage::testing::gha::token(&[(MAIN, READ_WRITE)]);
    for hidden in [secret.as_str(), "sig=", "devstoreaccount1"] {
        assert!(!shown.contains(hidden), "{hidden}");
    }
}
