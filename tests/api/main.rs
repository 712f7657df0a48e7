//! What presignd promises, tested from the outside: the real router on a real port, a real store
//! that checks signatures, and HTTP between them.

// Tests may panic.
#![allow(clippy::unwrap_used)]

mod auth;
mod batch;
mod better_upload;
mod buckets;
mod check;
mod checksums;
mod command;
mod commit;
mod connections;
mod content_types;
mod credentials;
mod deletes;
mod deploy;
mod dev_store;
mod docs;
mod downloads;
mod errors;
mod events;
mod faults;
mod filenames;
mod helpers;
mod http;
#[cfg(target_os = "linux")] // it reads /proc
mod memory;
mod openapi;
mod operations;
mod page;
mod parts;
mod policies;
mod presigned_post;
mod presigned_put;
mod process;
mod properties;
mod public_endpoint;
mod rate_limit;
mod receipts;
mod replicas;
mod shares;
mod stand_in;
mod strangers;
mod uppy;
mod vectors;
mod verify;
