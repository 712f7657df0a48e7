//! A client of the routes for uploads in parts.

use std::collections::BTreeMap;

use presignd::dev::BUCKET;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::helpers::{App, answer, client};

/// An upload in parts, as a client of `base` sees it.
#[derive(Clone)]
pub(crate) struct Upload {
    pub(super) base: String,
    pub(crate) key: String,
    pub(crate) id: String,
    /// The token or the key that each call is made with.
    pub(super) bearer: Option<String>,
}

pub(super) async fn create(app: &App, body: Value) -> Upload {
    create_at(&app.base, body).await
}

pub(crate) async fn create_at(base: &str, body: Value) -> Upload {
    create_in(base, BUCKET, body).await
}

/// An upload that begins in this bucket.
pub(crate) async fn create_in(base: &str, bucket: &str, body: Value) -> Upload {
    let request = client().post(format!("{base}/s3/multipart"));
    begun(base, bucket, request.json(&body)).await
}

/// An upload of the caller who has this token or key.
pub(crate) async fn create_by(base: &str, bearer: &str, body: Value) -> Upload {
    let request = client().post(format!("{base}/s3/multipart"));
    let request = request.bearer_auth(bearer).json(&body);
    begun(base, BUCKET, request).await.by(bearer)
}

async fn begun(base: &str, bucket: &str, request: RequestBuilder) -> Upload {
    let response = request.send().await.unwrap();
    let mut answer: BTreeMap<String, String> = answer(200, response).await;
    assert_eq!(answer.remove("bucket").unwrap(), bucket);
    let key = answer.remove("key").unwrap();
    let id = answer.remove("uploadId").unwrap();
    assert!(answer.is_empty());
    Upload {
        base: base.to_owned(),
        key,
        id,
        bearer: None,
    }
}

pub(crate) async fn video(app: &App) -> Upload {
    create(app, json!({"filename": "a b.mp4", "type": "video/mp4"})).await
}

impl Upload {
    /// The same upload, at another service.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// The same upload, with the token or the key of this caller.
    pub(crate) fn by(&self, bearer: &str) -> Self {
        Self {
            bearer: Some(bearer.to_owned()),
            ..self.clone()
        }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Response {
        let mut url = reqwest::Url::parse(&self.base).unwrap();
        url.path_segments_mut()
            .unwrap()
            .extend(["s3", "multipart", &self.id])
            .extend(path.split('/').filter(|segment| !segment.is_empty()));
        url.query_pairs_mut()
            .append_pair("key", &self.key)
            .extend_pairs(query);
        let mut request = client().request(method, url);
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    /// Each call that continues an upload, and its answer.
    pub(crate) async fn each_call(&self) -> Vec<(String, Response)> {
        let parts = json!({"parts": [{"PartNumber": 1, "ETag": "x"}]});
        let mut answers = Vec::new();
        for (method, path, query, body) in [
            (Method::GET, "", &[][..], None),
            (Method::GET, "1", &[], None),
            (Method::GET, "batch", &[("partNumbers", "1")], None),
            (Method::POST, "complete", &[], Some(parts)),
            (Method::DELETE, "", &[], None),
        ] {
            let call = format!("{method} {path}");
            answers.push((call, self.call(method, path, query, body).await));
        }
        answers
    }

    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Value {
        answer(200, self.call(method, path, query, body).await).await
    }

    pub(crate) async fn list(&self) -> Value {
        self.json(Method::GET, "", &[], None).await
    }

    /// Sends a part and gives the entity tag.
    pub(crate) async fn put(&self, number: u16, body: Vec<u8>) -> String {
        let answer = self.json(Method::GET, &number.to_string(), &[], None).await;
        assert_eq!(answer["expires"], 600);
        assert_eq!(answer.as_object().unwrap().len(), 2);
        let url = answer["url"].as_str().unwrap();
        let response = client().put(url).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.headers()["etag"].to_str().unwrap().to_owned()
    }

    /// Sends all of the file as one part and completes the upload.
    pub(crate) async fn send(&self, body: Vec<u8>) -> Response {
        let etag = self.put(1, body).await;
        self.complete(json!([{"PartNumber": 1, "ETag": etag}]))
            .await
    }

    pub(crate) async fn complete(&self, parts: Value) -> Response {
        let body = json!({ "parts": parts });
        self.call(Method::POST, "complete", &[], Some(body)).await
    }
}
