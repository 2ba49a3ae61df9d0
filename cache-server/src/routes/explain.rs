//! `POST /v1/nearest` and `GET /v1/explain`: what an explanation of misses is made from. The wrapper
//! asks the first when a unit has no record, or none that holds where many variables count; `kiln explain` the
//! second.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use kiln_storage::api::{ExplainResponse, NearestRequest, NearestResponse, Problem};
use kiln_storage::limits::MAX_NEAREST_UNITS;
use serde::Deserialize;

use crate::error::ApiError;
use crate::http::body;
use crate::index::{events, units, variables};
use crate::limits::MAX_QUESTION_BYTES;
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
    let asked: NearestRequest = body::json_within(request, MAX_QUESTION_BYTES).await?;
    let scopes = principal.read_ids();
    let read = move |index: &_| {
        let mut answer = NearestResponse::default();
        for scope in &scopes {
            match &asked.result {
                None => answer.units.extend(units::nearest(index, scope, &asked)?),
                Some(result) if answer.variables.is_empty() => {
                    answer.variables = variables::of_result(index, scope, result)?;
                }
                Some(_) => {}
            }
        }
        answer.units.truncate(MAX_NEAREST_UNITS);
        Ok(answer)
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
    let scopes = principal.read_ids();
    let read = move |index: &_| {
        for scope in &scopes {
            let told = events::explain(index, scope, which.build.clone())?;
            if !told.events.is_empty() {
                return Ok(told);
            }
        }
        Ok(ExplainResponse { build: which.build, ..ExplainResponse::default() })
    };
    Ok(Json(service.index.read(read).await?))
}
