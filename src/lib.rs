//! presignd issues presigned S3 upload URLs over HTTP.
//!
//! A client asks for permission to upload a file; the service checks the request and signs a URL; the
//! client sends the file straight to S3. The bytes never pass through the service, and the store itself
//! enforces what was signed.
//!
//! Dependencies point one way, `http → upload → s3`:
//!
//! - [`http`]: the outside. Translates requests and answers, authenticates callers, and limits rates,
//!   connections and memory. Does not decide what may be uploaded.
//! - [`upload`]: what may be uploaded. Knows no HTTP.
//! - [`s3`]: how it is signed. Knows no policies.
//!
//! Around them: [`cli`] has one function for each command, [`config`] reads the environment into one
//! value, `serve` builds the service from it, [`check`] tries a configuration against its store,
//! [`webhook`] notifies an application, [`telemetry`] writes the log, [`output`] is what commands
//! print, `error_chain` writes an error and its causes in one line, `refreshed` is a cached value that
//! is fetched again in time, `turns` limits how much callers use at the same time, `xml` reads the
//! errors of stores, `lambda` is the service as a function of AWS Lambda, and [`dev`] is the embedded
//! store of `presignd dev`.

/// Shows the name alone of a type in debug texts, because its values are secret, or too long to read.
macro_rules! debug_name {
    ($Type:ident) => {
        impl std::fmt::Debug for $Type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($Type))
            }
        }
    };
}

pub mod check;
pub mod cli;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
mod error_chain;
pub mod http;
#[cfg(feature = "lambda")]
mod lambda;
pub mod output;
mod refreshed;
pub mod s3;
mod serve;
pub mod telemetry;
mod turns;
pub mod upload;
pub mod webhook;
mod xml;
