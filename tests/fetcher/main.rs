//! The real `r-tftpd-fetcher`, locked down, between a supervisor, a broker, an origin and a name
//! server that are this test. Loopback only; needs no root and no other program than sh.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests, with helpers that are no test functions themselves"
)]

mod bodies;
mod breaks;
mod chaos;
mod harness;
mod names;
mod places;
mod secure;
