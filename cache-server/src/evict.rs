//! Eviction: keeping the store within its budget. What goes is decided by
//! [`crate::shares::plan`]; this acts on it, in the background.

use std::sync::atomic::Ordering;

use kiln_storage::ObjectName;
use kiln_storage::eviction::Budget;

use crate::clock;
use crate::error::ApiError;
use crate::index::{records, usage};
use crate::maker;
use crate::service::Service;
use crate::shares;

/// Evicts whenever the store has grown over its budget, until the task is dropped.
pub(crate) async fn run(service: Service) {
    loop {
        if let Err(error) = once(&service).await {
            error.tell(&service.log, format_args!("eviction"));
        }
        service.grown.notified().await;
    }
}

/// Measures the store, and evicts when it is over its budget; the bytes it holds then.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn once(service: &Service) -> Result<u64, ApiError> {
    // Nothing becomes visible between the plan and its end.
    let _guard = service.commit.lock().await;
    // By the connection that writes: lookups go on meanwhile.
    let (_, _, held) = service.index.write(records::sizes).await?;
    service.held.store(held, Ordering::Relaxed);
    let Some(budget) = service.config.cache_size.map(Budget::new) else {
        return Ok(held);
    };
    if held <= budget.max_bytes {
        return Ok(held);
    }
    let shares = service.clone();
    let (plan, places) = service
        .index
        .write(move |index| {
            let (state, whose) = (usage::state(index)?, usage::whose(index)?);
            let share = |name: &str| {
                let percent = shares.policy.trust().share(name);
                budget.max_bytes / 100 * u64::from(percent)
            };
            let plan = shares::plan(&state, &whose, share, (clock::now_ms(), &budget));
            let places = usage::forget(index, &plan)?;
            Ok((plan, places))
        })
        .await?;
    service.held.store(plan.bytes_after, Ordering::Relaxed);
    service.log.info(format_args!(
        "evicted {} results and {} blobs: {} bytes are {} now",
        plan.results.len(),
        plan.blobs.len(),
        plan.bytes_before,
        plan.bytes_after
    ));
    let records = places.iter().filter_map(|place| {
        records::object_name(&place.scope, &place.unit_key, &place.result_key, place.generation)
    });
    let again = places.iter().filter(|place| place.again);
    let again = again.filter_map(|place| maker::again_name(&place.scope, &place.result_key));
    let blobs = plan.blobs.iter().map(ObjectName::blob);
    for name in records.chain(again).chain(blobs) {
        if let Err(error) = service.store.delete(&name).await {
            ApiError::from(error).tell(&service.log, format_args!("eviction"));
        }
    }
    Ok(plan.bytes_after)
}
