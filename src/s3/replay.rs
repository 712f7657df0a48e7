//! Replays the SDK's presigner, which stays the authority.
//!
//! The presigner takes 20 µs for a URL, most of it to build a request and to take it apart again.
//! What it answers differs from one request to the next in a few places only. So it is asked now and then,
//! its answer is taken apart once ([`Shape`]), and from then on the few places are filled in and hashed.

mod shape;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use aws_credential_types::Credentials;
use tokio::sync::Mutex;

use self::shape::Shape;
use super::Bucket;
use super::object::{Object, ObjectCannedAcl, ServerSideEncryption, StorageClass};
use super::presign::{MAX_EXPIRES_IN, PresignError, PresignedRequest, Put, Request, Signing};

const DAY: u64 = 24 * 60 * 60;

/// The presigner of one kind of request, replayed.
///
/// - Nothing is replayed but with the very credentials and on the very day (UTC) that it was learned
///   for. Both are compared for each request, so that no clock that is turned and no rotation, however
///   late it is noticed, gets a signature of another day, key or token.
/// - Nothing is replayed that has not proved itself: what was learned has to give the presigner's own
///   answers, byte for byte, to requests with awkward keys and with every property.
/// - What it does not know it leaves to the presigner: whatever is not reproduced on that day with these
///   credentials, and each request with a value that signing would change. It never guesses.
/// - No request waits for another: one learns, the others go to the presigner meanwhile.
#[derive(Default)]
pub(super) struct Replay {
    learned: ArcSwapOption<Learned>,
    /// Held by the one who learns.
    learning: Mutex<()>,
}

struct Learned {
    credentials: Arc<Credentials>,
    /// Since 1970.
    day: u64,
    /// None if the presigner could not be reproduced.
    shape: Option<Shape>,
}

impl Learned {
    fn is_for(&self, signing: &Signing) -> bool {
        let are_the_same = Arc::ptr_eq(&self.credentials, &signing.credentials)
            || self.credentials == signing.credentials;
        are_the_same && self.day == day(signing.now)
    }
}

impl Replay {
    /// What the presigner would answer, as far as that is known: otherwise it has to be asked, and what it
    /// answers can be [learned](Self::learn).
    pub(super) fn presign(
        &self,
        request: Request<'_>,
        signing: &Signing,
    ) -> Option<PresignedRequest> {
        let learned = self.learned.load();
        let learned = learned.as_ref().filter(|it| it.is_for(signing))?;
        learned.shape.as_ref()?.presign(request, signing)
    }

    /// Learns what the presigner of `bucket` answers to such requests, unless that is known or someone else is
    /// learning.
    ///
    /// All requests must be of one kind, and for one bucket.
    pub(super) async fn learn(&self, bucket: &Bucket, request: Request<'_>, signing: &Signing) {
        let Ok(_learning) = self.learning.try_lock() else {
            return;
        };
        let learned = self.learned.load_full();
        if learned.is_some_and(|learned| learned.is_for(signing)) {
            return;
        }
        let shape = learn(bucket, request, signing).await;
        if let Err(error) = &shape
            && !self.is_slow()
        {
            tracing::warn!(%error, "every URL is signed the slow way, by the SDK's presigner");
        }
        self.learned.store(Some(Arc::new(Learned {
            credentials: Arc::clone(&signing.credentials),
            day: day(signing.now),
            shape: shape.ok(),
        })));
    }

    /// Whether the presigner could not be reproduced the last time.
    fn is_slow(&self) -> bool {
        let learned = self.learned.load();
        learned.as_ref().is_some_and(|it| it.shape.is_none())
    }
}

/// Days since 1970.
fn day(moment: SystemTime) -> u64 {
    since_epoch(moment) / DAY
}

fn since_epoch(moment: SystemTime) -> u64 {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs()
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

/// Has the presigner answer one request, and proves with others that this was enough.
async fn learn(
    bucket: &Bucket,
    request: Request<'_>,
    signing: &Signing,
) -> Result<Shape, PresignError> {
    let mut signing = signing.clone();
    // Of credentials that end the presigner tells in the log that the URL ends with them.
    *Arc::make_mut(&mut signing.credentials).expiry_mut() = None;
    let midnight = UNIX_EPOCH + Duration::from_secs(day(signing.now) * DAY);
    let lives = [
        (midnight, Duration::from_secs(1)),
        (midnight + Duration::from_secs(DAY - 1), MAX_EXPIRES_IN),
        (signing.now, Duration::from_mins(10)),
    ];
    let pairs = [("album", "7 & 8"), ("b.c_d-e", "가 나")].map(|(a, b)| (a.into(), b.into()));
    let puts = puts(&pairs);
    let samples: Vec<Request<'_>> = match request {
        Request::Put(_) => puts.iter().map(Request::Put).collect(),
        Request::Part { .. } => parts().to_vec(),
    };
    let mut shape = None;
    for (sample, &(now, expires_in)) in samples.into_iter().zip(lives.iter().cycle()) {
        signing.now = now;
        signing.expires_in = expires_in;
        let answer = bucket.ask_presigner(sample, &signing).await?;
        let shape: &Shape = match &mut shape {
            Some(shape) => shape,
            none => none.insert(Shape::read(sample.key(), &answer, &signing)?),
        };
        if shape.presign(sample, &signing) != Some(answer) {
            return Err(PresignError::unusable("it cannot be reproduced"));
        }
    }
    shape.ok_or_else(|| PresignError::unusable("there is none"))
}

const PLAIN: &str = "k";
/// All printable ASCII, of which a part is encoded, and more.
const AWKWARD: &str = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\u{7f}\u{80}\u{e9}가🎉";
/// Slashes, dots and encoded characters that a presigner could mean to tidy up.
const UNTIDY: &str = "/a//b/../c/./%2F%2e%41+//";

/// PUTs with keys and properties of all kinds. The first is the plainest.
fn puts(pairs: &[(String, String)]) -> Vec<Put<'_>> {
    let plain = |key| Object {
        key,
        content_type: "text/plain; charset=\"utf-8\"",
        ..Object::default()
    };
    let full = |key| Object {
        content_disposition: Some("attachment; filename*=UTF-8''a%20b"),
        cache_control: Some("public, max-age=31536000"),
        storage_class: Some(StorageClass::Standard),
        server_side_encryption: Some(ServerSideEncryption::AwsKms),
        kms_key_id: Some("arn:aws:kms:us-east-1:1:key/k"),
        acl: Some(ObjectCannedAcl::Private),
        tagging: pairs,
        metadata: pairs,
        checksum_sha256: Some("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        ..plain(key)
    };
    let put = |object, size, if_none_match| Put {
        object,
        size,
        if_none_match,
    };
    vec![
        put(plain(PLAIN), None, false),
        put(full(AWKWARD), Some(0), true),
        put(plain(AWKWARD), Some(u64::MAX), false),
        put(plain(UNTIDY), None, true),
        put(full(UNTIDY), None, false),
    ]
}

fn parts() -> [Request<'static>; 3] {
    [
        (PLAIN, PLAIN, 1),
        (AWKWARD, AWKWARD, 10_000),
        (UNTIDY, UNTIDY, 12),
    ]
    .map(|(key, upload_id, number)| Request::Part {
        key,
        upload_id,
        number,
    })
}
