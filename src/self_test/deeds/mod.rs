//! Every deed that is tried, by what it is about.

pub(super) mod descriptors;
pub(super) mod directories;
pub(super) mod fetcher;
pub mod fetches;
pub(super) mod memory;
pub mod messages;
pub mod reports;
pub(super) mod world;
