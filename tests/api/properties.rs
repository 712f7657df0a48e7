//! Whatever the policy and the request: the store accepts a grant exactly as it was given, and refuses
//! each single deviation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use presignd::dev::BUCKET;
use presignd::upload::{File, Filename, Sha256Checksum, UploadService};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use reqwest::Method;

use crate::helpers::{App, file, presign_post, presign_put, service, spawn_app, with_policies};
use crate::policies::sha256;
use crate::presigned_post;

/// A policy, as the lines of a file, and a request that it grants.
#[derive(Clone, Debug)]
struct Case {
    policy: String,
    filename: Filename,
    content_type: &'static str,
    metadata: BTreeMap<String, String>,
    with_checksum: bool,
    with_size: bool,
    body: String,
}

fn line(text: impl Into<String>) -> BoxedStrategy<String> {
    let text = text.into();
    any::<bool>()
        .prop_map(move |there| if there { text.clone() } else { String::new() })
        .boxed()
}

fn cases() -> impl Strategy<Value = Case> {
    let policy = (
        proptest::sample::select(vec![
            "key = 'uploads/{uuid}/{filename}'",
            "key = '{yyyy}/{mm}/{dd}/{uuid}.{ext}'",
            "key = 'a b+c/{uuid}-{filename}'",
        ]),
        line("max_size = '64 B'"),
        line("cache_control = 'public, max-age=31536000, immutable'"),
        line("storage_class = 'STANDARD'"),
        line("server_side_encryption = 'AES256'"),
        line("acl = 'private'"),
        line("tagging = { a = 'b/c', 'd e' = '' }"),
        line("metadata = { source = 'web', 'who.what' = '누구 = ?' }"),
        line("overwrite = false"),
        proptest::sample::select(vec!["", "active_content = 'allow'"]),
    )
        .prop_map(|(key, a, b, c, d, e, f, g, h, i)| {
            let lines = [key, &a, &b, &c, &d, &e, &f, &g, &h, i];
            format!(
                "{}\nallowed_metadata = ['album', 'title']",
                lines.join("\n")
            )
        });
    let name = proptest::collection::vec(
        prop_oneof![
            proptest::char::range(' ', '~'),
            proptest::char::range('가', '힣'),
            proptest::char::range('\u{1F300}', '\u{1F5FF}'),
            any::<char>(),
        ],
        1..40,
    );
    let name = name.prop_map(|chars| chars.into_iter().collect::<String>());
    let name = name.prop_filter_map("not a name", |name| Filename::parse(name).ok());
    let value = prop_oneof![
        "[!-~]([ -~]{0,20}[!-~])?",
        "[가-힣]([ -~가-힣]{0,20}[가-힣])?"
    ];
    let metadata = proptest::collection::btree_map(
        proptest::sample::select(vec!["album".to_owned(), "title".to_owned()]),
        value,
        0..=2,
    );
    let content_type = proptest::sample::select(vec![
        "image/png",
        "text/html; charset=utf-8",
        "image/svg+xml",
        "application/x; a=\"b c\"",
    ]);
    (
        policy,
        name,
        content_type,
        metadata,
        any::<bool>(),
        any::<bool>(),
        "[a-z]{1,60}",
    )
        .prop_map(
            |(policy, filename, content_type, metadata, with_checksum, with_size, body)| Case {
                with_size: with_size || policy.contains("max_size"),
                policy,
                filename,
                content_type,
                metadata,
                with_checksum,
                body,
            },
        )
}

impl Case {
    async fn service(&self, app: &App) -> Arc<UploadService> {
        let toml = format!("[policies.default]\n{}", self.policy);
        service(&app.config, BUCKET, true, with_policies(&toml)).await
    }

    fn file(&self) -> File {
        File {
            size: self.with_size.then_some(self.body.len() as u64),
            checksum_sha256: self
                .with_checksum
                .then(|| Sha256Checksum::parse(sha256(&self.body)).unwrap()),
            metadata: self.metadata.clone(),
            ..file(self.filename.as_str(), self.content_type)
        }
    }

    fn other_body(&self) -> String {
        let last = if self.body.ends_with('a') { 'b' } else { 'a' };
        format!("{}{last}", &self.body[..self.body.len() - 1])
    }
}

/// Runs a check for each of `cases` cases, on one store.
fn for_each_case(cases_to_run: u32, check: &impl AsyncFn(&App, Case)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(spawn_app());
    let config = ProptestConfig {
        cases: cases_to_run,
        max_shrink_iters: 30, // each goes to a store
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&cases(), |case| {
            runtime.block_on(check(&app, case));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_put_is_accepted_exactly_as_granted() {
    for_each_case(60, &async |app, case| {
        let uploads = case.service(app).await;
        let grant = presign_put(&uploads, &case.file(), SystemTime::now()).await;
        let key = grant.key.as_str();
        if case.policy.contains("{filename}") {
            assert!(key.ends_with(case.filename.as_str()), "{key}");
        }
        let url = grant.request.url.as_str();
        let granted = grant.request.headers.into_iter();
        let granted: BTreeMap<String, String> = granted
            .map(|(name, value)| (name.into_owned(), value))
            .collect();
        let send =
            async |method: Method, url: &str, headers: &BTreeMap<String, String>, body: &str| {
                let mut request = app.client.request(method, url);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let body = body.to_owned();
                request.body(body).send().await.unwrap().status()
            };
        let body = case.body.as_str();

        for name in granted.keys() {
            let mut headers = granted.clone();
            headers.remove(name);
            let status = send(Method::PUT, url, &headers, body).await;
            assert!(!status.is_success(), "without {name}: {status}");
            headers.insert(name.clone(), format!("{}x", granted[name]));
            let status = send(Method::PUT, url, &headers, body).await;
            assert!(!status.is_success(), "another {name}: {status}");
        }
        for name in [
            "x-amz-acl",
            "x-amz-meta-more",
            "x-amz-tagging",
            "x-amz-storage-class",
        ] {
            let mut headers = granted.clone();
            if headers.insert(name.into(), "STANDARD".into()).is_none() {
                let status = send(Method::PUT, url, &headers, body).await;
                assert_eq!(status, 403, "one more: {name}");
            }
        }
        if case.with_size {
            for body in [&format!("{body}x"), &body[1..]] {
                let status = send(Method::PUT, url, &granted, body).await;
                assert!(!status.is_success(), "another size: {status}");
            }
        }
        if case.with_checksum {
            let status = send(Method::PUT, url, &granted, &case.other_body()).await;
            assert!(!status.is_success(), "other bytes: {status}");
        }
        let status = send(Method::GET, url, &granted, "").await;
        assert!(!status.is_success(), "another method: {status}");
        assert_eq!(app.stored(key).await, None);

        let status = send(Method::PUT, url, &granted, body).await;
        assert!(status.is_success(), "as granted: {status}");
        let stored = app.stored(key).await.unwrap();
        assert_eq!(
            stored,
            (body.as_bytes().to_vec(), case.content_type.to_owned())
        );

        let again = send(Method::PUT, url, &granted, body).await;
        let once = case.policy.contains("overwrite = false");
        assert_eq!(again.as_u16(), if once { 412 } else { 200 });
    });
}

#[test]
fn a_form_is_accepted_exactly_as_granted() {
    for_each_case(40, &async |app, case| {
        if case.policy.contains("overwrite = false")
            || case.filename.as_str().contains("${filename}")
        {
            return;
        }
        let uploads = case.service(app).await;
        let grant = presign_post(&uploads, &case.file(), SystemTime::now()).await;
        let key = grant.key.as_str();
        let granted = grant.request.fields;
        let send = async |fields: &BTreeMap<String, String>, body: &str| {
            presigned_post::send(&app.client, &grant.request.url, fields, body)
                .await
                .status()
        };
        let body = case.body.as_str();

        for name in granted.keys() {
            let mut fields = granted.clone();
            fields.remove(name);
            // The bucket is named by the address, too.
            if name != "bucket" {
                let status = send(&fields, body).await;
                assert!(!status.is_success(), "without {name}: {status}");
            }
            fields.insert(name.clone(), format!("{}x", granted[name]));
            let status = send(&fields, body).await;
            assert!(!status.is_success(), "another {name}: {status}");
        }
        let mut fields = granted.clone();
        fields.insert("x-amz-meta-added".into(), "x".into());
        let status = send(&fields, body).await;
        assert!(!status.is_success(), "an added field: {status}");
        if let Some(max @ ..100) = grant.max_size {
            let over = "x".repeat(usize::try_from(max).unwrap() + 1);
            let status = send(&granted, &over).await;
            assert!(!status.is_success(), "a byte over: {status}");
        }
        if case.with_size {
            let status = send(&granted, &body[1..]).await;
            assert!(!status.is_success(), "a byte under: {status}");
        }
        if case.with_checksum {
            let status = send(&granted, &case.other_body()).await;
            assert!(!status.is_success(), "other bytes: {status}");
        }
        assert_eq!(app.stored(key).await, None);

        let status = send(&granted, body).await;
        assert!(status.is_success(), "as granted: {status}");
        let stored = app.stored(key).await.unwrap();
        assert_eq!(
            stored,
            (body.as_bytes().to_vec(), case.content_type.to_owned())
        );
    });
}
