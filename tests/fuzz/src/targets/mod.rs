//! One module for each target.

pub mod control;
pub mod freshness;
pub mod inbox;
pub mod join;
pub mod link;
pub mod netascii;
pub mod options;
pub mod packet;
pub mod path;
pub mod receive;
pub mod session;
pub mod wire;
