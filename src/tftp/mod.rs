//! The TFTP protocol (RFC 1350, 2347, 2348, 2349, 7440), pure: no clock, no socket, no file, no
//! log. Events go in with the time they happened, transmissions come out.
//!
//! - [`packet`]: datagrams to packets and back.
//! - [`options`]: what a client asks and what it is granted.
//! - [`block`]: block numbers, 16 bits on the wire and absolute inside.
//! - [`session`]: one transfer to a client (RRQ).
//! - [`receive`]: one transfer from a client that is discarded (WRQ with `--wrq-devnull`).
//! - [`transfer`]: what both kinds of transfer are told and what they amount to.
//! - `path`: what a transfer learns about round trips and order on the way to its client.
//! - `timer`: when a silent client is reminded, and when it is given up.
//! - [`netascii`]: the translation of RFC 764 line ends.

pub mod block;
pub mod netascii;
pub mod options;
pub mod packet;
mod path;
pub mod receive;
pub mod session;
mod timer;
pub mod transfer;

#[cfg(test)]
mod clients;
#[cfg(test)]
mod simulator;
