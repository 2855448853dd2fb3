//! A wire that delays, doubles, reorders and damages what crosses it, the same by seed.
//!
//! Standard input is a packet socket (AF_PACKET, SOCK_RAW) bound to the device towards the server,
//! standard output one bound to the device towards the clients; frames go from one to the other.
//! Only UDP over IPv4 is harmed, and TCP does not pass: the kernel leaves checksums to devices, so
//! the relay fills in that of each UDP datagram.

mod datagram;
mod harm;
mod options;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv, send};

use harm::Harm;
use options::Options;

/// Longest frame: what no device of the test cuts, with room to spare.
const LONGEST: usize = 65536;

/// Frames read in a row before what is due is sent.
const BATCH: usize = 64;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("r-tftpd-relay: {error}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let (server, clients) = (stdin(), stdout());
    match relay(&options, &server, &clients) {
        // A device is gone: the test is over.
        Err(Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("r-tftpd-relay: {error}");
            ExitCode::FAILURE
        }
        Ok(never) => match never {},
    }
}

/// Frames on their way; the first due on top. The number keeps the order of those due together.
type Flying = BinaryHeap<Reverse<(Instant, u64, usize, Vec<u8>)>>;

/// Carries frames until a socket fails.
fn relay(
    options: &Options,
    server: &impl AsFd,
    clients: &impl AsFd,
) -> Result<std::convert::Infallible, Errno> {
    let sides = [server.as_fd(), clients.as_fd()];
    let mut harms = [Harm::new(options, 0), Harm::new(options, 1)];
    let mut flying = Flying::new();
    let mut buffer = vec![0; LONGEST];
    let mut number = 0;
    loop {
        let now = Instant::now();
        let left = flying
            .peek()
            .map(|Reverse((due, ..))| due.saturating_duration_since(now));
        let mut polled = sides.map(|side| PollFd::new(side, PollFlags::POLLIN));
        match ppoll(&mut polled, left.map(Into::into), None) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(error) => return Err(error),
        }
        for (from, side) in sides.iter().enumerate() {
            for _ in 0..BATCH {
                let length = match recv(side.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                    Ok(length) => length,
                    Err(Errno::EAGAIN | Errno::EINTR) => break,
                    Err(error) => return Err(error),
                };
                let now = Instant::now();
                for (late, frame) in harms[from].apply(buffer[..length].to_vec()) {
                    number += 1;
                    let due = now + options.delay + late;
                    flying.push(Reverse((due, number, 1 - from, frame)));
                }
            }
        }
        let now = Instant::now();
        while flying
            .peek()
            .is_some_and(|Reverse((due, ..))| *due <= now + EARLY)
        {
            let Some(Reverse((_, _, to, frame))) = flying.pop() else {
                break;
            };
            match send(sides[to].as_raw_fd(), &frame, MsgFlags::empty()) {
                // A full queue loses what comes, as on any wire.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EMSGSIZE) => (),
                Err(error) => return Err(error),
            }
        }
    }
}

/// To sleep for less than this takes longer than that.
const EARLY: Duration = Duration::from_micros(20);
