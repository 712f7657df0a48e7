//! The lifecycle rules of the bucket. They are kept, so that tools can set and read them, but
//! nothing expires here.

use std::fs;
use std::io;
use std::path::PathBuf;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use s3s::dto::{
    BucketLifecycleConfiguration, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, LifecycleRule,
    PutBucketLifecycleConfigurationInput, PutBucketLifecycleConfigurationOutput,
};
use s3s::xml::{Deserialize, Deserializer, SerializeContent, Serializer};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::files::{Staged, remove_if_there};
use super::{Answer, BucketStore};

/// The element of the file.
const ELEMENT: &str = "LifecycleConfiguration";

impl BucketStore {
    fn rules_file(&self) -> PathBuf {
        let bucket = BASE64_URL_SAFE_NO_PAD.encode(&self.name);
        self.root.join(format!(".bucket-{bucket}.lifecycle.xml"))
    }

    #[expect(clippy::unused_async, reason = "all operations are called alike")]
    pub(super) async fn get_rules(
        &self,
        _: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> Answer<GetBucketLifecycleConfigurationOutput> {
        let xml = match fs::read(self.rules_file()) {
            Ok(xml) => xml,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(s3_error!(
                    NoSuchLifecycleConfiguration,
                    "The lifecycle configuration does not exist"
                ));
            }
            Err(error) => return Err(S3Error::internal_error(error)),
        };
        let mut xml = Deserializer::new(&xml);
        let configuration = BucketLifecycleConfiguration::deserialize(&mut xml);
        let configuration = configuration.map_err(S3Error::internal_error)?;
        Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
            rules: Some(configuration.rules),
            ..GetBucketLifecycleConfigurationOutput::default()
        }))
    }

    #[expect(clippy::unused_async, reason = "all operations are called alike")]
    pub(super) async fn put_rules(
        &self,
        request: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> Answer<PutBucketLifecycleConfigurationOutput> {
        let configuration = request.input.lifecycle_configuration;
        let configuration = configuration.ok_or_else(|| s3_error!(MalformedXML))?;
        configuration.rules.iter().try_for_each(check)?;
        let mut xml = Vec::new();
        Serializer::new(&mut xml)
            .element(ELEMENT, |xml| configuration.serialize_content(xml))
            .map_err(S3Error::internal_error)?;
        let staged = Staged::new(&self.root);
        let [new, ..] = staged.files();
        let write = || {
            fs::write(&new, xml)?;
            fs::rename(&new, self.rules_file())
        };
        write().map_err(S3Error::internal_error)?;
        Ok(S3Response::new(
            PutBucketLifecycleConfigurationOutput::default(),
        ))
    }

    #[expect(clippy::unused_async, reason = "all operations are called alike")]
    pub(super) async fn delete_rules(
        &self,
        _: S3Request<DeleteBucketLifecycleInput>,
    ) -> Answer<DeleteBucketLifecycleOutput> {
        remove_if_there(&self.rules_file()).map_err(S3Error::internal_error)?;
        Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
    }
}

/// Refuses common mistakes in rules, as
/// [S3 does](https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html).
fn check(rule: &LifecycleRule) -> S3Result<()> {
    let has_action = rule.abort_incomplete_multipart_upload.is_some()
        || rule.expiration.is_some()
        || rule.noncurrent_version_expiration.is_some()
        || rule.noncurrent_version_transitions.is_some()
        || rule.transitions.is_some();
    if !has_action {
        return Err(s3_error!(
            InvalidRequest,
            "At least one action needs to be specified in a rule"
        ));
    }
    if rule.filter.is_none() && rule.prefix.is_none() {
        return Err(s3_error!(MalformedXML));
    }
    let filter = rule.filter.as_ref();
    let has_tag = filter.is_some_and(|filter| {
        filter.tag.is_some() || filter.and.as_ref().is_some_and(|and| and.tags.is_some())
    });
    if has_tag && rule.abort_incomplete_multipart_upload.is_some() {
        return Err(s3_error!(
            InvalidRequest,
            "AbortIncompleteMultipartUpload cannot be specified with Tags"
        ));
    }
    Ok(())
}
