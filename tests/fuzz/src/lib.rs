//! What the fuzz targets check: one module each, whose `run` takes the fuzzer's bytes and panics where a promise is
//! broken.
//!
//! What is private to a program is compiled in from the product's own files: nothing is exported for the fuzzer's sake,
//! and neither TLS nor an HTTP client have to be built for it.

// Private to the programs; `resolve` looks for the other two here.
mod broker;
#[path = "../../../src/tftp/mod.rs"]
#[allow(dead_code, reason = "the targets use a part of it")]
mod tftp;
use r_tftpd_broker::{link, wire};

mod input;
pub mod targets;
