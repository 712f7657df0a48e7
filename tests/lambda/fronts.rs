//! What stands in front of a function: the events that each makes of requests, and what it takes from
//! the answers.

use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    FunctionUrl,
    /// API Gateway's simpler kind, whose events have the stage in the path.
    HttpApi,
    /// API Gateway's older kind, whose events have headers and queries twice.
    RestApi,
    Alb,
    /// With `lambda.multi_value_headers.enabled`.
    AlbMultiValue,
}

pub(crate) const FRONTS: [Front; 5] = [
    Front::FunctionUrl,
    Front::HttpApi,
    Front::RestApi,
    Front::Alb,
    Front::AlbMultiValue,
];

/// A request as a client sends it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) query: Vec<(&'static str, &'static str)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the front sends the body as bytes (base64) instead of text.
    pub(crate) is_binary: bool,
    pub(crate) from: String,
}

impl Sent {
    pub(crate) fn get(path: &'static str) -> Self {
        Self {
            method: "GET",
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            is_binary: false,
            from: "192.0.2.1".to_owned(),
        }
    }

    pub(crate) fn post(path: &'static str, body: &Value) -> Self {
        Self {
            method: "POST",
            body: body.to_string().into_bytes(),
            headers: vec![("content-type", "application/json".to_owned())],
            ..Self::get(path)
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn encoded_body(&self) -> Value {
        if self.is_binary {
            BASE64_STANDARD.encode(&self.body).into()
        } else {
            String::from_utf8(self.body.clone()).unwrap().into()
        }
    }
}

/// What the client gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Front {
    fn sample(self) -> Value {
        let text = match self {
            Self::FunctionUrl => include_str!("events/function-url.json"),
            Self::HttpApi => include_str!("events/http-api.json"),
            Self::RestApi => include_str!("events/rest-api.json"),
            Self::Alb => include_str!("events/alb.json"),
            Self::AlbMultiValue => include_str!("events/alb-multi-value.json"),
        };
        serde_json::from_str(text).unwrap()
    }

    pub(crate) fn event(self, sent: &Sent) -> Value {
        let mut event = self.sample();
        event["body"] = sent.encoded_body();
        event["isBase64Encoded"] = sent.is_binary.into();
        match self {
            Self::FunctionUrl | Self::HttpApi => fill_http_api(&mut event, sent),
            Self::RestApi => fill_rest_api(&mut event, sent),
            Self::Alb | Self::AlbMultiValue => {
                fill_alb(&mut event, sent, self == Self::AlbMultiValue);
            }
        }
        event
    }

    /// What the front makes of what the function answers.
    pub(crate) fn answer(self, answer: &Value) -> Answer {
        let status = answer["statusCode"].as_u64().unwrap();
        let of_one = headers(&answer["headers"]);
        let of_many = headers(&answer["multiValueHeaders"]);
        let headers = match self {
            Self::FunctionUrl | Self::HttpApi | Self::Alb => of_one,
            Self::AlbMultiValue => of_many,
            // It takes both, and what is in both twice.
            Self::RestApi => of_one.into_iter().chain(of_many).collect(),
        };
        let text = answer["body"].as_str().unwrap_or_default();
        let body = if answer["isBase64Encoded"].as_bool().unwrap() {
            BASE64_STANDARD.decode(text).unwrap()
        } else {
            text.as_bytes().to_vec()
        };
        Answer {
            status: StatusCode::from_u16(status.try_into().unwrap()).unwrap(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name, HeaderValue::from_str(&value).unwrap()))
                .fold(HeaderMap::new(), |mut map, (name, value)| {
                    let before = map.insert(name, value);
                    assert!(before.is_none(), "{self:?}: twice {before:?}");
                    map
                }),
            body,
        }
    }
}

fn fill_http_api(event: &mut Value, sent: &Sent) {
    let path = match event["requestContext"]["stage"].as_str().unwrap() {
        "$default" => sent.path.to_owned(),
        stage => format!("/{stage}{}", sent.path),
    };
    event["rawPath"] = path.clone().into();
    let http = &mut event["requestContext"]["http"];
    http["path"] = path.into();
    http["method"] = sent.method.into();
    http["sourceIp"] = sent.from.clone().into();
    let query = sent.query.iter();
    let query: Vec<String> = query
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    event["rawQueryString"] = query.join("&").into();
    for (name, value) in &sent.headers {
        join(&mut event["headers"], name, value);
    }
}

fn fill_rest_api(event: &mut Value, sent: &Sent) {
    event["path"] = sent.path.into();
    event["httpMethod"] = sent.method.into();
    let context = &mut event["requestContext"];
    context["path"] = format!("/prod{}", sent.path).into();
    context["httpMethod"] = sent.method.into();
    context["identity"]["sourceIp"] = sent.from.clone().into();
    for (name, value) in &sent.headers {
        event["headers"][name] = value.clone().into();
        append(&mut event["multiValueHeaders"], name, value);
    }
    for (name, value) in &sent.query {
        set(&mut event["queryStringParameters"], name, (*value).into());
        append(&mut event["multiValueQueryStringParameters"], name, value);
    }
}

fn fill_alb(event: &mut Value, sent: &Sent, has_multi_values: bool) {
    event["path"] = sent.path.into();
    event["httpMethod"] = sent.method.into();
    // It adds the address to what the client invented.
    let forwarded = format!("203.0.113.99, {}", sent.from);
    let query = sent.query.iter();
    let query = query.map(|(name, value)| (encoded(name), encoded(value)));
    if has_multi_values {
        event["multiValueHeaders"]["x-forwarded-for"] = json!([forwarded]);
        for (name, value) in &sent.headers {
            append(&mut event["multiValueHeaders"], name, value);
        }
        for (name, value) in query {
            append(&mut event["multiValueQueryStringParameters"], &name, &value);
        }
    } else {
        event["headers"]["x-forwarded-for"] = forwarded.into();
        for (name, value) in &sent.headers {
            set(&mut event["headers"], name, value.clone().into());
        }
        for (name, value) in query {
            set(&mut event["queryStringParameters"], &name, value.into());
        }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn set(map: &mut Value, name: &str, value: Value) {
    if map.is_null() {
        *map = Map::new().into();
    }
    map[name] = value;
}

fn append(map: &mut Value, name: &str, value: &str) {
    if let Some(values) = map.get_mut(name) {
        values.as_array_mut().unwrap().push(value.into());
    } else {
        set(map, name, json!([value]));
    }
}

fn join(map: &mut Value, name: &str, value: &str) {
    let joined = match map.get(name).and_then(Value::as_str) {
        Some(before) if name != "host" => format!("{before},{value}"),
        _ => value.to_owned(),
    };
    map[name] = joined.into();
}

/// Of one value each, or of several.
fn headers(map: &Value) -> Vec<(HeaderName, String)> {
    let entries = map.as_object().into_iter().flatten();
    entries
        .flat_map(|(name, value)| {
            let name = HeaderName::from_str(name).unwrap();
            let values = match value {
                Value::Array(values) => values.clone(),
                value => vec![value.clone()],
            };
            values
                .into_iter()
                .map(move |value| (name.clone(), value.as_str().unwrap().to_owned()))
        })
        .collect()
}
