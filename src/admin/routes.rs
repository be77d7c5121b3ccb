//! Which path answers what.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{AdminState, Readiness, metrics, status};

struct Shown {
    state: AdminState,
    registry: Registry,
}

/// All paths over `state`.
pub(super) fn router(state: AdminState) -> Router {
    let registry = metrics::registry(state.clone());
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/statusz", get(statusz))
        .with_state(Arc::new(Shown { state, registry }))
}

async fn readyz(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    match shown.state.readiness.get() {
        Readiness::Ready => (StatusCode::OK, Json(json!({"ready": true}))),
        other => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false, "reason": other.as_str()}))),
    }
}

async fn scrape(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    match metrics::render(&shown.registry) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text),
        Err(error) => {
            let plain = [(header::CONTENT_TYPE, "text/plain")];
            (StatusCode::INTERNAL_SERVER_ERROR, plain, format!("metrics cannot be written: {error}\n"))
        }
    }
}

async fn statusz(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    Json(status::document(&shown.state))
}
