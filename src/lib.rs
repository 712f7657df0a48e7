//! presignd hands out presigned S3 upload URLs over HTTP.
//!
//! A client asks for leave to upload a file; the service checks the request and signs a URL; the
//! client sends the file straight to S3. The bytes never pass through here, and the store itself
//! enforces what was signed.
//!
//! Data flows one way, `http → upload → s3`:
//!
//! - [`http`]: the outside. Translates requests and answers, decides nothing.
//! - [`upload`]: what may be uploaded. Knows no HTTP.
//! - [`s3`]: how it is signed. Knows no policies.
//!
//! Around them: [`cli`] has one function for each command, [`check`] finds what is wrong with a set-up, [`config`] reads the environment,
//! [`telemetry`] writes the log, `lambda` is the service as a function of AWS Lambda, and [`dev`] is the embedded
//! store of `presignd dev`.

pub mod check;
pub mod cli;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
pub mod http;
#[cfg(feature = "lambda")]
mod lambda;
pub mod s3;
pub mod telemetry;
pub mod upload;
