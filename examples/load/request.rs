//! What is asked for, and the answer that it must get.

use std::fmt::{self, Display};
use std::io;
use std::time::Instant;

use serde_json::{Value, json};

const FILES_OF_A_LIST: u64 = 10;

/// A request that is due, and the answer that it must get.
pub(super) struct Request {
    pub(super) due: Instant,
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// The seed of its other fields.
    pub(super) random: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Url,
    List,
    Form,
    WrongName,
    UnknownPolicy,
    Health,
}

impl Request {
    pub(super) fn route(&self) -> &'static str {
        match self.kind {
            Kind::Url | Kind::WrongName | Kind::UnknownPolicy => "POST /upload/presigned-url",
            Kind::List => "POST /upload/presigned-urls",
            Kind::Form => "POST /upload/presigned-post",
            Kind::Health => "GET /healthz",
        }
    }

    fn status(&self) -> u16 {
        match self.kind {
            Kind::Url | Kind::List | Kind::Form => 201,
            Kind::WrongName => 400,
            Kind::UnknownPolicy => 422,
            Kind::Health => 200,
        }
    }

    /// Unique for each request, so that an answer to another request is noticed.
    fn filename(&self, place: u64) -> String {
        let number = self.number;
        match (self.random + place) % 5 {
            0 => format!("{number}-{place}.jpg"),
            1 => format!("Überweisung {number}-{place} (final).pdf"),
            2 => format!("{}-{number}-{place}.bin", "long".repeat(30)),
            3 => format!("写真 {number}-{place}.png"),
            _ => format!("report+{number}&{place}.csv"),
        }
    }

    fn file(&self, place: u64) -> Value {
        let types = ["image/jpeg", "application/pdf", "text/csv"];
        let mut file = json!({
            "filename": self.filename(place),
            "contentType": types[(self.random % 3) as usize],
        });
        let random = self.random >> 8;
        if random.is_multiple_of(2) {
            file["size"] = json!(random % 5_000_000_000);
        }
        if random.is_multiple_of(3) {
            let names = ["album", "camera", "place", "author"];
            for name in &names[..(random % 5) as usize] {
                file["metadata"][name] = json!(format!("{name} {}", random % 1_000));
            }
        }
        file
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut file = self.file(0);
        let body = match self.kind {
            Kind::Health => {
                return b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
            }
            Kind::Url | Kind::Form => file,
            Kind::List => {
                let files: Vec<Value> =
                    (0..FILES_OF_A_LIST).map(|place| self.file(place)).collect();
                json!({ "files": files })
            }
            Kind::WrongName => {
                file["filename"] = json!(format!("../{}", self.number));
                file
            }
            Kind::UnknownPolicy => {
                file["policy"] = json!("unknown");
                file
            }
        }
        .to_string();
        let (route, length) = (self.route(), body.len());
        format!(
            "{route} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    pub(super) fn check(&self, answer: &Answer) -> Result<(), Fault> {
        let said = || String::from_utf8_lossy(&answer.body);
        if answer.status != self.status() {
            let what = format!("{} for {}: {}", answer.status, self.route(), said());
            return Err(Fault::new("status", what));
        }
        let body: Value =
            serde_json::from_slice(&answer.body).map_err(|error| Fault::new("body", error))?;
        let is_grant = |grant: &Value, place| {
            let has =
                |name: &str, what: &dyn Fn(&str) -> bool| grant[name].as_str().is_some_and(what);
            has("url", &|url| url.starts_with("https://"))
                && has("key", &|key| {
                    key.ends_with(&format!("/{}", self.filename(place)))
                })
        };
        let is_signed = |grant: &Value| {
            let url = grant["url"].as_str();
            url.is_some_and(|url| url.contains("X-Amz-Signature="))
        };
        let is_right = match self.kind {
            Kind::Url => is_grant(&body, 0) && is_signed(&body),
            Kind::List => body["uploads"].as_array().is_some_and(|grants| {
                grants.len() as u64 == FILES_OF_A_LIST
                    && (0..)
                        .zip(grants)
                        .all(|(place, grant)| is_grant(grant, place) && is_signed(grant))
            }),
            Kind::Form => is_grant(&body, 0) && body["fields"]["x-amz-signature"].is_string(),
            Kind::WrongName => body["code"] == "invalid-request",
            Kind::UnknownPolicy => body["code"] == "unknown-policy",
            Kind::Health => body["status"] == "ok",
        };
        if is_right {
            Ok(())
        } else {
            let what = format!("for {}: {}", self.route(), said());
            Err(Fault::new("body", what))
        }
    }
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) closes: bool,
}

impl Answer {
    /// `None` if the answer is not complete yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        let malformed = |what| Fault::new("body", what);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let (head, body) = (&bytes[..end], &bytes[end + 4..]);
        let head = str::from_utf8(head).map_err(|_| malformed("a head that is no text"))?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|line| line.get(..3)?.parse().ok())
            .ok_or_else(|| malformed("no status"))?;
        let field = |name: &str| {
            lines.clone().find_map(|line| {
                let (is, value) = line.split_once(':')?;
                is.eq_ignore_ascii_case(name).then_some(value.trim())
            })
        };
        let length: usize = field("content-length")
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| malformed("no content-length"))?;
        if body.len() > length {
            return Err(malformed("more bytes than were announced"));
        }
        let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok((body.len() == length).then(|| Self {
            status,
            body: body.to_vec(),
            closes,
        }))
    }
}

/// A failure: its kind, which is counted, and a description.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: &'static str,
    detail: String,
}

impl Fault {
    pub(super) fn new(kind: &'static str, detail: impl Display) -> Self {
        let detail = detail.to_string();
        Self { kind, detail }
    }

    /// For a request that is due on a connection that failed.
    pub(super) fn lost() -> Self {
        Self::new("lost", "its connection is gone")
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::new("reset", error)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}
