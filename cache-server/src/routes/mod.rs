//! The calls of the API, one file per group. [`table`] is the list of all routes; router and
//! OpenAPI document are held against it by a test.

pub(crate) mod blobs;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod leases;
pub(crate) mod lookup;
pub(crate) mod metrics;
pub(crate) mod notes;
pub(crate) mod openapi;
pub(crate) mod pages;
pub(crate) mod quarantine;
pub(crate) mod range;
pub(crate) mod results;
pub(crate) mod revoke;
pub(crate) mod runs;
pub(crate) mod server;
pub(crate) mod session;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};

use crate::error::ApiError;
use crate::http::middleware;
use crate::service::Service;

/// A path, its methods in lower case, and what answers.
type Route = (&'static str, &'static [&'static str], MethodRouter<Service>);

/// Every route.
pub(crate) fn table() -> Vec<Route> {
    vec![
        ("/v1/lookup", &["post"], post(lookup::lookup)),
        (
            "/v1/blobs/{digest}",
            &["get", "head", "put"],
            get(blobs::get).head(blobs::head).put(blobs::put),
        ),
        ("/v1/blobs/missing", &["post"], post(blobs::missing)),
        ("/v1/blobs/pack", &["post"], post(blobs::packed)),
        ("/v1/results/{key}", &["delete", "put"], delete(revoke::delete).put(results::publish)),
        ("/v1/results/{key}/maker", &["get"], get(revoke::maker)),
        ("/v1/revoke", &["post"], post(revoke::revoke)),
        ("/v1/results/{key}/bring", &["post"], post(results::bring)),
        ("/v1/results/{key}/reject", &["post"], post(results::reject)),
        ("/v1/results/{key}/quarantine", &["post"], post(quarantine::add)),
        (
            "/v1/quarantine",
            &["get", "delete"],
            get(quarantine::list).delete(quarantine::release_all),
        ),
        ("/v1/quarantine/{key}", &["delete"], delete(quarantine::release)),
        ("/v1/notes/{name}", &["get", "put"], get(notes::get).put(notes::put)),
        (leases::LEASES, &["get", "post"], get(leases::list).post(leases::ask)),
        ("/v1/leases/{id}/hold", &["post"], post(leases::hold)),
        ("/v1/leases/{id}/release", &["post"], post(leases::release)),
        ("/v1/events", &["post"], post(events::add)),
        ("/v1/nearest", &["post"], post(explain::nearest)),
        ("/v1/explain", &["get"], get(explain::explain)),
        ("/v1/session", &["post"], post(session::begin)),
        ("/v1/stats", &["get"], get(events::stats)),
        ("/v1/stats/zero", &["post"], post(events::zero)),
        ("/v1/runs", &["get"], get(runs::list)),
        ("/v1/runs/{run}", &["get"], get(runs::run)),
        ("/v1/runs/{run}/now", &["get"], get(runs::now)),
        ("/v1/runs/{run}/jobs/{job}", &["get"], get(runs::job)),
        ("/v1/runs/{run}/report.json", &["get"], get(runs::report)),
        ("/v1/runs/{run}/report.md", &["get"], get(runs::markdown)),
        ("/v1/runs/{run}/report.html", &["get"], get(pages::file)),
        ("/", &["get"], get(pages::list)),
        ("/runs/{run}", &["get"], get(pages::run)),
        ("/pages/{name}", &["get"], get(pages::asset)),
        ("/v1/server", &["get"], get(server::info)),
        ("/v1/drain", &["post"], post(server::drain)),
        ("/v1/shutdown", &["post"], post(server::shutdown)),
        ("/metrics", &["get"], get(metrics::metrics)),
        ("/healthz", &["get"], get(server::healthz)),
        ("/readyz", &["get"], get(server::readyz)),
        ("/openapi.json", &["get"], get(openapi::document)),
    ]
}

/// The router of a service.
pub(crate) fn router(service: &Service) -> Router {
    table()
        .into_iter()
        .fold(Router::new(), |router, (path, _, answer)| router.route(path, answer))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(axum::middleware::from_fn_with_state(service.clone(), middleware::bounded))
        .layer(axum::middleware::from_fn_with_state(service.clone(), middleware::outer))
        .with_state(service.clone())
}
