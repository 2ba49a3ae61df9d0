//! `GET /`, `GET /runs/{run}`, `GET /v1/runs/{run}/report.html`: what the server shows to people, and what its pages
//! are made with.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use kiln_storage::remote::events::KeepsEvents;

use super::runs::{Asked, Page, gathered_with_earlier, listed, malformed, name, told_behind};
use crate::error::ApiError;
use crate::limits::PAGE_RUNS;
use crate::pages::{self, Form};
use crate::principal::Principal;
use crate::report::markdown::Plain;
use crate::report::{gather, make};
use crate::service::Service;

const HTML: &str = "text/html; charset=utf-8";

/// What is said where the runs of other servers are not listed.
const OF_OTHERS: &str =
    "Runs that this server took part in, and those whose report it was asked for.";
const BEHIND_IS_SILENT: &str =
    "Runs that this server took part in: the server behind it, which has all, does not tell.";

type Headers = [(HeaderName, &'static str); 5];

fn headers(kind: &'static str) -> Headers {
    [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, pages::POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // Runs go on while they are looked at, and another server may bring other pages.
        (CACHE_CONTROL, "no-cache"),
    ]
}

fn html(status: StatusCode, page: String) -> Response {
    (status, headers(HTML), page).into_response()
}

/// Runs, newest first, for a browser.
#[utoipa::path(
    get,
    path = "/",
    params(("before" = Option<String>, Query, description = "Where the list goes on")),
    responses(
        (status = 200, description = "The page", content_type = "text/html"),
        (status = "4XX", description = "Malformed", body = kiln_storage::api::Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Service>,
    principal: Principal,
    page: Result<Query<Page>, QueryRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, HTML).await {
        return Ok((headers(HTML), told).into_response());
    }
    let Query(page) = page.map_err(|_| malformed())?;
    let later = page.before.is_some();
    let runs = listed(&service, principal, Page { limit: Some(PAGE_RUNS), ..page }).await?;
    let note = match service.edge.as_ref().map(|edge| edge.remote.keeps_events()) {
        None => None,
        Some(KeepsEvents::AsServer) => Some(BEHIND_IS_SILENT),
        Some(_) => Some(OF_OTHERS),
    };
    Ok(html(StatusCode::OK, pages::list::page(&runs, (later, note))))
}

async fn made(
    service: &Service,
    principal: &Principal,
    (run, form): (&str, Form),
) -> Result<Option<String>, ApiError> {
    let scope = gathered_with_earlier(service, principal, run).await?;
    let _turn = gather::turn(service).await?;
    let Some(input) = gather::input(service, &scope, run).await? else {
        return Ok(None);
    };
    let page = move || pages::run::page(form, &make(&input), &input.jobs, &Plain);
    Ok(Some(gather::blocking(page).await?))
}

/// The report of a run, for a browser.
#[utoipa::path(
    get,
    path = "/runs/{run}",
    params(("run" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The page", content_type = "text/html"),
        (status = 404, description = "No such run: a page that says so", content_type = "text/html"),
    )
)]
pub(crate) async fn run(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    if let Some(told) = told_behind(&service, &principal, &asked, HTML).await {
        return Ok((headers(HTML), told).into_response());
    }
    let run = name(path)?;
    Ok(match made(&service, &principal, (&run, Form::Served)).await? {
        Some(page) => html(StatusCode::OK, page),
        None => html(StatusCode::NOT_FOUND, pages::not_found(&run)),
    })
}

/// The report of a run as a page in one file, without a script.
#[utoipa::path(
    get,
    path = "/v1/runs/{run}/report.html",
    params(("run" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The page", content_type = "text/html"),
        (status = 404, description = "No such run", body = kiln_storage::api::Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn file(
    State(service): State<Service>,
    principal: Principal,
    path: Result<Path<String>, PathRejection>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let mut response = match told_behind(&service, &principal, &asked, HTML).await {
        Some(told) => told,
        None => {
            let run = name(path)?;
            let page = made(&service, &principal, (&run, Form::File)).await?;
            html(StatusCode::OK, page.ok_or(ApiError::NotFound)?)
        }
    };
    let policy = HeaderValue::from_static(pages::FILE_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// What pages are made with.
#[utoipa::path(
    get,
    path = "/pages/{name}",
    params(("name" = String, Path, description = "`style.css`, `script.js` or `icon.svg`")),
    responses(
        (status = 200, description = "The style, the script or the icon"),
        (status = 404, description = "Nothing of that name", body = kiln_storage::api::Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn asset(
    path: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let (kind, text) = match name(path)?.as_str() {
        "style.css" => ("text/css; charset=utf-8", pages::STYLE),
        "script.js" => ("text/javascript; charset=utf-8", pages::SCRIPT),
        "icon.svg" => ("image/svg+xml", pages::ICON),
        _ => return Err(ApiError::NotFound),
    };
    Ok((headers(kind), text))
}
