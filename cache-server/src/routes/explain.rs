//! `POST /v1/nearest` and `GET /v1/explain`: what an explanation of misses is made from. The wrapper
//! asks the first when a unit has no record, or none that holds where many variables count; `kiln explain` the
//! second.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use kiln_storage::api::{ExplainResponse, NearestRequest, NearestResponse, Problem};
use serde::Deserialize;

use crate::error::ApiError;
use crate::http::body;
use crate::index::{events, units, variables};
use crate::principal::Principal;
use crate::service::Service;

/// Earlier units of the crate, with what their keys were made of; or the variables that counted for a result.
#[utoipa::path(
    post,
    path = "/v1/nearest",
    request_body = NearestRequest,
    responses(
        (status = 200, description = "The units most like it, or the variables", body = NearestResponse),
        (status = "4XX", description = "Malformed", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn nearest(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<Json<NearestResponse>, ApiError> {
    let asked: NearestRequest = body::json(request).await?;
    let scope = principal.scope_id;
    let read = move |index: &_| match &asked.result {
        None => Ok(NearestResponse {
            units: units::nearest(index, &scope, &asked)?,
            ..NearestResponse::default()
        }),
        Some(result) => Ok(NearestResponse {
            variables: variables::of_result(index, &scope, result)?,
            ..NearestResponse::default()
        }),
    };
    Ok(Json(service.index.read_few(read).await?))
}

/// Which build is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    build: Option<String>,
}

/// What became of the units of one build, and why.
#[utoipa::path(
    get,
    path = "/v1/explain",
    params(("build" = Option<String>, Query, description = "The build; the newest otherwise")),
    responses(
        (status = 200, description = "Its events", body = ExplainResponse),
        (status = "4XX", description = "Malformed", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn explain(
    State(service): State<Service>,
    principal: Principal,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<ExplainResponse>, ApiError> {
    let Query(which) = which.map_err(|_| ApiError::BadRequest("the query is malformed".into()))?;
    service.reports.flush(&service).await?;
    let scope = principal.scope_id;
    let read = move |index: &_| events::explain(index, &scope, which.build);
    Ok(Json(service.index.read(read).await?))
}
