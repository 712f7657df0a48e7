//! The embedded store of `presignd dev` accepts every file and is as strict as S3.

mod events;
mod files;
mod objects;
mod parts;
mod reasons;
mod safe;
mod strict;
mod tags;

use reqwest::Response;

use crate::uppy::sign::element;

/// The status of a refusal, and the code and the message of its XML.
async fn refusal(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    let [code, message] = ["Code", "Message"].map(|name| element(&body, name).to_owned());
    (status, code, message)
}

/// The message of a refusal, which must have this status and this code.
async fn refused(response: Response, status: u16, code: &str) -> String {
    let (found, named, message) = refusal(response).await;
    assert_eq!((found, named.as_str()), (status, code), "{message}");
    message
}
