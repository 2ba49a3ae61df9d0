//! `GET /openapi.json`: the document of the API, generated from the handlers and wire types.

use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::OpenApi;

/// The document.
#[derive(Debug, Clone, Copy, OpenApi)]
#[openapi(
    info(
        title = "Kiln",
        description = "A content-addressed compiler cache, version 1 of its API."
    ),
    paths(
        super::lookup::lookup,
        super::blobs::get,
        super::blobs::head,
        super::blobs::put,
        super::blobs::missing,
        super::blobs::packed,
        super::results::publish,
        super::results::bring,
        super::results::reject,
        super::revoke::maker,
        super::revoke::delete,
        super::revoke::revoke,
        super::quarantine::add,
        super::quarantine::list,
        super::quarantine::release_all,
        super::quarantine::release,
        super::notes::get,
        super::notes::put,
        super::leases::ask,
        super::leases::hold,
        super::leases::release,
        super::leases::list,
        super::events::add,
        super::explain::nearest,
        super::explain::explain,
        super::session::begin,
        super::events::stats,
        super::events::zero,
        super::runs::list,
        super::runs::run,
        super::runs::now,
        super::runs::job,
        super::runs::report,
        super::runs::markdown,
        super::pages::file,
        super::pages::list,
        super::pages::run,
        super::pages::asset,
        super::server::info,
        super::server::drain,
        super::server::shutdown,
        super::metrics::metrics,
        super::server::healthz,
        super::server::readyz,
        document,
    )
)]
pub(crate) struct ApiDocument;

/// The document as text, as it is in docs/openapi.json.
///
/// # Errors
/// The document cannot be written as JSON.
pub fn text() -> Result<String, serde_json::Error> {
    let mut text = ApiDocument::openapi().to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "OpenAPI", content_type = "application/json"))
)]
pub(crate) async fn document() -> impl IntoResponse {
    /// Made once: whoever asks for it many times at once has one of it.
    static TEXT: OnceLock<Result<Bytes, String>> = OnceLock::new();
    let text = TEXT.get_or_init(|| text().map(Bytes::from).map_err(|error| error.to_string()));
    let text = text.clone().map_err(crate::error::ApiError::Internal);
    ([(CONTENT_TYPE, "application/json")], text)
}
