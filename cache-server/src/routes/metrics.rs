//! `GET /metrics`: what the server counts, in the text format of Prometheus.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::clock;
use crate::error::ApiError;
use crate::history::read;
use crate::index::{records, usage};
use crate::metrics::{Readings, text};
use crate::principal::Principal;
use crate::remote;
use crate::service::Service;

/// Metrics; docs/metrics.md lists them.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Metrics", content_type = "text/plain"))
)]
pub(crate) async fn metrics(
    State(service): State<Service>,
    principal: Principal,
) -> Result<impl IntoResponse, ApiError> {
    if principal.is_public() {
        return Err(ApiError::Forbidden("only with a token"));
    }
    service.reports.flush(&service).await?;
    // By the connection that writes, as statistics are: lookups go on.
    let (store, oldest_ms) = service
        .index
        .write(|index| Ok((records::sizes(index)?, usage::least_recent_ms(index)?)))
        .await?;
    let runs = service.history.read(read::counts).await?;
    let status = remote::status(&service).await?;
    let faults = service.edge.as_ref().map(|edge| edge.faults.load(Ordering::Relaxed));
    let readings = Readings {
        role: service.config.role.word(),
        uptime: service.started.elapsed(),
        store,
        budget: service.config.cache_size,
        oldest_ms: oldest_ms.map(|at| clock::now_ms().saturating_sub(at)),
        runs,
        leases: service.leases.figures(),
        remote: status.zip(faults),
    };
    let text = text(&service.metrics, &readings);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
