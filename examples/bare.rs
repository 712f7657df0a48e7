//! A bare route for `scripts/bench`: what axum alone can do on this machine.
//!
//! It reads the same request into a struct and answers JSON of the same size, but checks nothing, signs
//! nothing, logs nothing and has no layers.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    filename: String,
    content_type: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Grant {
    url: String,
    key: String,
    method: &'static str,
    headers: BTreeMap<&'static str, String>,
    expires_at: &'static str,
}

async fn grant(Json(request): Json<Request>) -> (StatusCode, Json<Grant>) {
    let key = format!(
        "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/{}",
        request.filename
    );
    // The answer is as long as one with a URL of AWS.
    let url = format!(
        "https://bucket.s3.us-east-1.amazonaws.com/{key}?{}",
        "q".repeat(317)
    );
    let grant = Grant {
        url,
        key,
        method: "PUT",
        headers: BTreeMap::from([("content-type", request.content_type)]),
        expires_at: "2026-01-01T00:10:00Z",
    };
    (StatusCode::CREATED, Json(grant))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1);
    let addr = addr.as_deref().unwrap_or("127.0.0.1:3001");
    let listener = tokio::net::TcpListener::bind(addr).await?;
    axum::serve(
        listener,
        Router::new().route("/upload/presigned-url", post(grant)),
    )
    .await
}
