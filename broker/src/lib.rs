//! The privileged side of r-tftpd: the supervisor, the broker, and what all processes share to
//! talk to each other and to lock themselves down.
//!
//! Nothing here parses what comes from the network, but for the first two bytes of a datagram.

pub mod broker;
pub mod channel;
pub mod control;
pub mod fetch;
pub mod inbox;
pub mod link;
pub mod lockdown;
pub mod memory;
pub mod net;
pub mod settings;
pub mod similar;
pub mod start;
pub mod supervisor;
mod sys;
pub mod wire;
