//! Revoking: removes all results that came from somebody, by what the server knows of who made them and by what they
//! said of themselves ([`wanted`]); [`take`] does it for some results, [`run`] for all that are meant, in batches.
//!
//! Nothing is refused from then on: a revoke is about who made a result, and the next who compiles its unit stores it
//! anew. (What refuses a key is [`crate::quarantine`].) Called by [`crate::routes::revoke`], by [`command`] where no
//! server runs, and by `DELETE /v1/results/{key}`.

pub(crate) mod command;
pub(crate) mod take;
pub(crate) mod wanted;

use std::time::Instant;

use kiln_storage::ResultKey;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::ApiError;
use crate::index::evicted;
use crate::index::makers::{self, Maker, Of, Which};
use crate::limits::{MAX_REVOKED_MAKERS, MAX_REVOKED_SHOWN, REVOKE_BATCH, REVOKE_STEP};
use crate::maker::{By, Said};
use crate::service::Service;
use take::Taken;
use wanted::Wanted;

/// Which results are to go. Each that is given has to fit; one has to be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RevokeRequest {
    /// Those of a run: as the server knows it, or as they say.
    pub run: Option<String>,
    /// Those of a job: its workflow as the server knows it, or the job as they say.
    pub job: Option<String>,
    /// Those of somebody, as the server knows them.
    pub principal: Option<String>,
    /// Those of a toolchain, as they say.
    pub toolchain: Option<String>,
    /// Those of a scope: `repository@ref`, or its id.
    pub scope: Option<String>,
    /// Those stored then or later, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Whether they stay in the place behind the server.
    pub here: bool,
    /// Whether they are removed, and not only counted.
    pub remove: bool,
}

/// Results of one maker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct OfMaker {
    /// What they are called.
    pub principal: String,
    /// Who they are, as the server knows them.
    pub by: By,
    /// What they say of themselves; nobody has verified it.
    pub said: Said,
    /// Results.
    pub results: u64,
    /// Bytes of them and of the blobs that they name.
    pub bytes: u64,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct OneResult {
    /// Its key.
    #[schema(value_type = String)]
    pub result_key: ResultKey,
    /// The id of its scope.
    pub scope: String,
    /// The crate.
    pub unit: String,
    /// Who made it.
    pub principal: String,
    /// When it was stored, milliseconds since 1970.
    pub at_ms: u64,
}

/// What became of the results in the place behind the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct BehindIt {
    /// The place.
    pub place: String,
    /// Results that are not there any more.
    pub gone: u64,
    /// Results that may be there still.
    pub left: u64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub(crate) struct Revoked {
    /// Whether they were removed.
    pub removed: bool,
    /// Results.
    pub results: u64,
    /// Bytes of them and of the blobs that they name. What other results name as well stays.
    pub bytes: u64,
    /// Results that are not here any more and went behind the server: they are taken back there, too.
    pub evicted: u64,
    /// Those of them that somebody else published, too. They go all the same.
    pub also_by_others: u64,
    /// By who made them; not all where they are many.
    pub makers: Vec<OfMaker>,
    /// Some of them.
    pub first: Vec<OneResult>,
    /// There are more: to be asked again.
    pub more: bool,
    /// Objects that are still in the store, which takes no writes. A new index would find them again.
    pub stay: u64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stay_why: Option<String>,
    /// What became of them behind the server, where something is there that had them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<BehindIt>,
    /// What is behind the server and cannot be told to be theirs or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl Revoked {
    fn add(&mut self, maker: &Maker, results: &[Of]) {
        let (principal, bytes) = (maker.by.name(), results.iter().map(|one| one.bytes).sum());
        let of = OfMaker {
            principal: principal.clone(),
            by: maker.by.clone(),
            said: maker.said.clone(),
            results: results.len() as u64,
            bytes,
        };
        self.results += of.results;
        self.bytes += of.bytes;
        self.also_by_others += results.iter().filter(|one| one.place.again).count() as u64;
        let room = MAX_REVOKED_SHOWN.saturating_sub(self.first.len());
        self.first.extend(results.iter().take(room).map(|one| OneResult {
            result_key: one.place.result_key,
            scope: one.place.scope.clone(),
            unit: one.unit.clone(),
            principal: principal.clone(),
            at_ms: one.made_ms,
        }));
        self.of_maker(of);
    }

    fn of_maker(&mut self, more: OfMaker) {
        let same = |one: &&mut OfMaker| one.by == more.by && one.said == more.said;
        if let Some(one) = self.makers.iter_mut().find(same) {
            one.results += more.results;
            one.bytes += more.bytes;
        } else if self.makers.len() < MAX_REVOKED_MAKERS {
            self.makers.push(more);
        }
    }

    fn took(&mut self, taken: Taken) {
        self.stay += taken.stay;
        self.stay_why = taken.stay_why.or(self.stay_why.take());
        self.behind(taken.behind);
    }

    fn behind(&mut self, more: Option<BehindIt>) {
        let Some(more) = more else { return };
        let all = self.behind.get_or_insert_with(BehindIt::default);
        all.place = more.place;
        all.gone += more.gone;
        all.left += more.left;
        all.why = more.why.or(all.why.take());
    }

    /// This and what came before it.
    fn and(mut self, next: Self) -> Self {
        self.removed |= next.removed;
        self.results += next.results;
        self.bytes += next.bytes;
        self.evicted += next.evicted;
        self.also_by_others += next.also_by_others;
        let room = MAX_REVOKED_SHOWN.saturating_sub(self.first.len());
        self.first.extend(next.first.into_iter().take(room));
        next.makers.into_iter().for_each(|of| self.of_maker(of));
        self.more = next.more;
        self.stay += next.stay;
        self.stay_why = next.stay_why.or(self.stay_why);
        self.behind(next.behind);
        self.unknown = next.unknown.or(self.unknown);
        self
    }
}

/// [`run`], with lines in the log.
///
/// # Errors
/// As [`run`].
pub(crate) async fn audited(
    service: &Service,
    request: RevokeRequest,
    who: &str,
) -> Result<Revoked, ApiError> {
    let removes = request.remove;
    let asked = serde_json::to_string(&request).unwrap_or_default();
    if removes {
        service.log.info(format_args!("audit: revoke by {who} begins: {asked}"));
    }
    let revoked = run(service, request).await;
    if let Ok(Revoked { results, bytes, evicted, stay, behind, unknown, .. }) = &revoked
        && removes
    {
        let left = behind.as_ref().map_or(0, |behind| behind.left);
        service.log.info(format_args!(
            "audit: revoke by {who}: {results} results ({bytes} bytes) removed; {evicted} were behind the server alone; \
             {stay} objects and {left} results behind the server stay"
        ));
        if let Some(unknown) = unknown {
            service.log.warn(format_args!("audit: revoke by {who}: {unknown}"));
        }
    }
    revoked
}

/// Removes the results that are meant, or counts them; in batches, and for a bounded time: there may be more. Goes by
/// the connection that writes, so lookups go on.
///
/// # Errors
/// What store and index fail with; [`ApiError::Unprocessable`] where nothing is said of what is meant.
pub(crate) async fn run(service: &Service, request: RevokeRequest) -> Result<Revoked, ApiError> {
    let begun = Instant::now();
    let wanted = Wanted::of(&request)
        .ok_or_else(|| ApiError::Unprocessable("it is not said which results".into()))?;
    let which = Which { since_ms: request.since_ms.unwrap_or(0), scope: wanted.scope() };
    let mut all = Revoked { removed: request.remove, ..Revoked::default() };
    if request.remove {
        // Whose token was revoked a moment ago stores nothing behind our back: what is being stored now is seen below.
        service.policy.trust().tokens().look_now();
        drop(service.commit.lock().await);
    }
    let mut last = 0;
    loop {
        let page = move |index: &_| makers::after(index, last, REVOKE_BATCH);
        let page = service.index.write(page).await?;
        let Some((id, _)) = page.last() else { break };
        last = *id;
        for (id, maker) in page.into_iter().filter(|(_, maker)| wanted.fits(maker)) {
            of_maker(service, (id, &maker, &which, request.here), begun, &mut all).await?;
            if !request.here && !all.more {
                evicted_of(service, (id, &which), begun, &mut all).await?;
            }
            if all.more {
                return Ok(all);
            }
        }
    }
    if request.remove {
        service.index.write(makers::sweep).await?;
    }
    if !request.here {
        all.unknown = unknown(service, &which).await?;
    }
    Ok(all)
}

/// What is behind the server of which it is not known here who made it. What another server sent to a bucket is none of
/// this one's makers'.
async fn unknown(service: &Service, which: &Which) -> Result<Option<String>, ApiError> {
    let Some(edge) = service.edge.as_ref().filter(|edge| edge.remote.keeps_scopes()) else {
        return Ok(None);
    };
    let since = service.index.write(evicted::known_since_ms).await?;
    let below = match &which.scope {
        Some(id) => format!("results/*/{id}/"),
        None => "results/ (a scope names less)".to_owned(),
    };
    Ok((which.since_ms < since).then(|| {
        format!(
            "{}: who made what was sent there before {} and is not here any more is not known; it is below {below}",
            edge.remote.display(),
            clock::iso(since)
        )
    }))
}

/// Has those of a maker taken back behind the server that are not here any more, unless it has failed already.
async fn evicted_of(
    service: &Service,
    (id, which): (i64, &Which),
    begun: Instant,
    all: &mut Revoked,
) -> Result<(), ApiError> {
    if !all.removed {
        let of = which.clone();
        all.evicted += service.index.write(move |index| evicted::count(index, id, &of)).await?;
        return Ok(());
    }
    while all.behind.as_ref().is_none_or(|behind| behind.left == 0) {
        let of = which.clone();
        let page = move |index: &_| evicted::of_maker(index, id, &of, REVOKE_BATCH);
        let page = service.index.write(page).await?;
        if page.is_empty() {
            break;
        }
        if begun.elapsed() >= REVOKE_STEP {
            all.more = true;
            break;
        }
        all.evicted += page.len() as u64;
        all.behind(take::take_evicted(service, page).await?);
    }
    Ok(())
}

async fn of_maker(
    service: &Service,
    (id, maker, which, here): (i64, &Maker, &Which, bool),
    begun: Instant,
    all: &mut Revoked,
) -> Result<(), ApiError> {
    let mut last = 0;
    loop {
        let which = which.clone();
        let page = move |index: &_| makers::results(index, id, &which, (last, REVOKE_BATCH));
        let page = service.index.write(page).await?;
        let Some(one) = page.last() else { return Ok(()) };
        last = one.record;
        if begun.elapsed() >= REVOKE_STEP {
            all.more = true;
            return Ok(());
        }
        all.add(maker, &page);
        if all.removed {
            all.took(take::take(service, page, here).await?);
        }
    }
}
