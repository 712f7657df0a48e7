//! What a signature costs: by the SDK's presigner, and by our own function.
//!
//! Run `cargo bench`. Only the ratios of one run mean anything. None of this is a test.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use presignd::s3::{self, Bucket, CredentialsCache, Get, Object, Post, Put, Request};
use tokio::runtime::Runtime;

const LIFE: Duration = Duration::from_mins(10);
const KEY: &str = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg";

async fn bucket(token: Option<&str>) -> (Client, Bucket) {
    let token = token.map(str::to_owned);
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", token, None, "bench");
    let provider = SharedCredentialsProvider::new(credentials);
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(provider.clone())
        .build();
    let credentials = CredentialsCache::new(provider, LIFE);
    let client = s3::client(&config, false, &credentials);
    let bucket = Bucket::new(client.clone(), client.clone(), "bucket".into(), credentials);
    (
        client,
        bucket.await.expect("a bucket that can be signed for"),
    )
}

fn object(key: &str) -> Object<'_> {
    Object {
        key,
        content_type: "image/jpeg",
        ..Object::default()
    }
}

async fn presigner(client: &Client, key: &str) -> String {
    let config = PresigningConfig::expires_in(LIFE).expect("ten minutes");
    let request = client.put_object().bucket("bucket").key(key);
    let presigned = request.content_type("image/jpeg").presigned(config).await;
    presigned.expect("signed").uri().to_owned()
}

async fn signed(bucket: &Bucket, key: &str) -> String {
    let put = Put {
        object: object(key),
        ..Put::default()
    };
    let presigned = bucket
        .presign(Request::Put(&put), LIFE, SystemTime::now())
        .await;
    presigned.expect("signed").url
}

fn one(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let (client, bucket) = runtime.block_on(self::bucket(None));
    let (_, with_token) = runtime.block_on(self::bucket(Some(&"t".repeat(800))));

    let mut one = criterion.benchmark_group("one PUT");
    one.bench_function("presigner", |b| {
        b.iter(|| runtime.block_on(presigner(&client, black_box(KEY))));
    });
    one.bench_function("our own", |b| {
        b.iter(|| runtime.block_on(signed(&bucket, black_box(KEY))));
    });
    one.bench_function("our own, with a session token", |b| {
        b.iter(|| runtime.block_on(signed(&with_token, black_box(KEY))));
    });
    one.finish();

    let mut one = criterion.benchmark_group("one GET");
    let disposition = "attachment; filename=\"example.jpg\"";
    one.bench_function("presigner", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let config = PresigningConfig::expires_in(LIFE).expect("ten minutes");
                let request = client.get_object().bucket("bucket").key(black_box(KEY));
                let request = request.response_content_disposition(disposition);
                request.presigned(config).await.expect("signed")
            })
        });
    });
    one.bench_function("our own", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let get = Get {
                    key: black_box(KEY),
                    version_id: None,
                    content_disposition: disposition,
                    content_type: None,
                };
                let url = bucket
                    .presign(Request::Get(&get), LIFE, SystemTime::now())
                    .await;
                url.expect("signed")
            })
        });
    });
    one.finish();

    criterion.bench_function("one POST policy", |b| {
        let post = Post {
            object: object(KEY),
            size: 0..=5_000_000,
        };
        b.iter_batched(
            SystemTime::now,
            |now| {
                runtime
                    .block_on(bucket.presign_post(&post, LIFE, now))
                    .expect("signed")
            },
            BatchSize::SmallInput,
        );
    });
}

fn many(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let (client, bucket) = runtime.block_on(self::bucket(None));

    let keys: Vec<String> = (0..1000).map(|n| format!("{KEY}{n}")).collect();
    let mut batch = criterion.benchmark_group("1,000 PUTs");
    batch.throughput(Throughput::Elements(1000)).sample_size(20);
    batch.bench_function("presigner", |b| {
        b.iter(|| {
            runtime.block_on(async {
                for key in &keys {
                    black_box(presigner(&client, key).await);
                }
            });
        });
    });
    batch.bench_function("our own", |b| {
        b.iter(|| {
            runtime.block_on(async {
                for key in &keys {
                    black_box(signed(&bucket, key).await);
                }
            });
        });
    });
    batch.finish();

    let mut parts = criterion.benchmark_group("10,000 parts");
    parts
        .throughput(Throughput::Elements(10_000))
        .sample_size(10);
    parts.bench_function("presigner", |b| {
        b.iter(|| {
            runtime.block_on(async {
                for number in 1..=10_000 {
                    let config = PresigningConfig::expires_in(LIFE).expect("ten minutes");
                    let part = client.upload_part().bucket("bucket").key(KEY);
                    let part = part.upload_id("id").part_number(number);
                    black_box(part.presigned(config).await.expect("signed"));
                }
            });
        });
    });
    parts.bench_function("our own", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let now = SystemTime::now();
                for number in 1..=10_000 {
                    let part = Request::Part {
                        key: KEY,
                        upload_id: "id",
                        number,
                        size: None,
                    };
                    let part = bucket.presign(part, LIFE, now).await;
                    black_box(part.expect("signed"));
                }
            });
        });
    });
    parts.finish();
}

criterion_group!(benches, one, many);
criterion_main!(benches);
