//! Where objects are for clients, compared with the URLs that boto3 makes.

use super::*;

/// `scripts/endpoint-urls` makes the table.
#[tokio::test]
async fn objects_are_where_boto3_puts_them() {
    let table = include_str!("../../../tests/vectors/endpoints.json");
    let rows: Vec<serde_json::Value> = serde_json::from_str(table).unwrap();
    for row in rows {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        let provider = SharedCredentialsProvider::new(credentials);
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"));
        config.set_endpoint_url(text("endpoint"));
        let is = |name: &str| row[name].as_bool();
        config.set_use_dual_stack(is("dual_stack"));
        config.set_use_fips(is("fips"));
        let config = config.build();
        let settings = |public_endpoint| Settings {
            bucket: text("bucket").unwrap(),
            force_path_style: row["path_style"].as_bool().unwrap(),
            public_endpoint,
            accelerate: is("accelerate").unwrap_or(false),
        };
        let elsewhere = config
            .to_builder()
            .endpoint_url("http://127.0.0.1:1")
            .build();
        for (config, public) in [(&config, None), (&elsewhere, text("endpoint"))] {
            if public.is_none() && config.endpoint_url() != row["endpoint"].as_str() {
                continue; // There is no public endpoint to try.
            }
            let credentials = CredentialsCache::new(provider.clone(), Duration::ZERO);
            let settings = settings(public);
            let buckets = buckets(config, &settings, [], credentials, true).await;
            let buckets = buckets.unwrap();
            let bucket = buckets.default_bucket();
            let (key, url) = (text("key").unwrap(), text("url").unwrap());
            assert_eq!(bucket.address(&key), url, "{row}");
            let object = Object {
                key: &key,
                content_type: "a/b",
                ..Object::default()
            };
            let put = Put {
                object,
                ..Put::default()
            };
            let signed = bucket.presign(Request::Put(&put), Duration::from_secs(1), midnight());
            let signed = signed.await.unwrap().url;
            assert_eq!(signed.split('?').next(), Some(url.as_str()), "{row}");
        }
    }
}

#[tokio::test]
async fn a_bucket_that_cannot_be_accelerated_is_refused_by_its_name() {
    let provider = SharedCredentialsProvider::new(Credentials::new("A", "s", None, None, "test"));
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"));
    let config = config.build();
    let access_point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/a";
    for (bucket, other, named) in [
        ("with.dot", "my-bucket", "with.dot"),
        ("my-bucket", "with.dot", "with.dot"),
        (access_point, "my-bucket", access_point),
    ] {
        let settings = Settings {
            bucket: bucket.into(),
            force_path_style: false,
            public_endpoint: None,
            accelerate: true,
        };
        let credentials = CredentialsCache::new(provider.clone(), Duration::ZERO);
        let error = buckets(&config, &settings, [other], credentials, true).await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(named) && error.contains("S3_ACCELERATE"),
            "{error}"
        );
    }
}
