//! A server, a network and a client in virtual time, for tests: the same seed, the same run.

mod client;
mod goodput;
mod network;
mod tests;

pub(super) use client::{Client, Habit};
pub(super) use network::{Link, Random};

use std::time::{Duration, Instant};

use super::packet::{data_header, parse_request};
use super::session::{Extent, Figures, Limits, Outcome, Session, Transmit};

/// The zero of virtual time: instants can not be made but by the clock, so it is asked once.
pub(super) fn epoch() -> Instant {
    Instant::now()
}

/// The limits of a server with its defaults, on a path without MTU.
pub(super) fn limits() -> Limits {
    Limits {
        timeout: Duration::from_secs(3),
        max_retries: 5,
        max_blksize: 65464,
        max_windowsize: 64,
        options: true,
        mtu: 0,
        ipv6: false,
    }
}

/// The byte of every test file at this offset.
pub(super) fn byte_at(offset: u64) -> u8 {
    offset.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

/// What a run amounted to.
#[derive(Debug)]
pub(super) struct Ending {
    /// How the last session ended.
    pub(super) outcome: Outcome,
    /// Its figures.
    pub(super) figures: Figures,
    /// Virtual time it took.
    pub(super) took: Duration,
    /// Virtual time until the client had the whole file, if it has.
    pub(super) received: Option<Duration>,
    /// The last session's idea of where the client cuts windows.
    pub(super) window_cut: Option<u16>,
}

/// One server with one file, one client, and the two directions between them.
pub(super) struct World {
    pub(super) limits: Limits,
    pub(super) len: u64,
    pub(super) client: Client,
    pub(super) to_client: Link,
    pub(super) to_server: Link,
    pub(super) random: Random,
    /// The source grows by so many bytes every 10 ms; `None` = it is complete from the start.
    pub(super) growth: Option<u64>,
}

impl World {
    /// A world with a perfect network of 0.2 ms round trip.
    pub(super) fn new(len: u64, client: Client) -> Self {
        Self {
            limits: limits(),
            len,
            client,
            to_client: Link::new(),
            to_server: Link::new(),
            random: Random::new(0),
            growth: None,
        }
    }

    /// A world whose network loses so many packets of 1000 each way, a millisecond long.
    pub(super) fn lossy(len: u64, client: Client, loss: u64) -> Self {
        let mut world = Self::new(len, client);
        for link in [&mut world.to_client, &mut world.to_server] {
            link.delay = Duration::from_millis(1);
            link.loss = loss;
        }
        world
    }

    /// Runs until both sides are at their end, and checks on the way what always has to hold.
    pub(super) fn run(mut self) -> Ending {
        let epoch = epoch();
        let mut now = epoch;
        let mut session: Option<Checked> = None;
        let mut received = None;
        let mut extent = Extent {
            len: self.growth.map_or(self.len, |_| 0),
            complete: false,
        };
        extent.complete = extent.len == self.len;
        let mut grows_at = self.growth.map(|_| now);
        for datagram in self.client.start(now) {
            self.to_server.send(datagram, now, &mut self.random);
        }
        for _step in 0..5_000_000 {
            let deadline = session
                .as_ref()
                .and_then(|session| session.session.deadline());
            let times = [
                self.to_client.next(),
                self.to_server.next(),
                deadline,
                self.client.deadline(),
                grows_at,
            ];
            let Some(next) = times.into_iter().flatten().min() else {
                let session = session.expect("no request arrived");
                return Ending {
                    outcome: session.session.outcome().expect("the session has no end"),
                    figures: session.session.figures(),
                    took: now - epoch,
                    received,
                    window_cut: session.session.window_cut(),
                };
            };
            now = now.max(next);
            if grows_at.is_some_and(|at| at <= now) {
                extent.len = self.len.min(extent.len + self.growth.unwrap_or(0));
                extent.complete = extent.len == self.len;
                grows_at = (!extent.complete).then(|| now + Duration::from_millis(10));
                if let Some(session) = &mut session {
                    session.session.handle_extent(extent, now);
                }
            }
            let mut replies = self.client.handle_timeout(now);
            if let Some(datagram) = self.to_client.receive(now) {
                replies.extend(self.client.handle_datagram(&datagram, self.len, now));
            }
            if self.client.has_file() {
                received.get_or_insert(now - epoch);
            }
            for datagram in replies {
                self.to_server.send(datagram, now, &mut self.random);
            }
            if let Some(session) = &mut session {
                session.session.handle_timeout(now);
            }
            if let Some(datagram) = self.to_server.receive(now) {
                match (parse_request(&datagram), &mut session) {
                    (Ok(_), Some(session)) if session.session.outcome().is_none() => {
                        session.session.handle_repeated_request(now);
                    }
                    (Ok(request), _) => {
                        let fresh = Session::new(&request.asked, &self.limits, extent, None, now);
                        session = Some(Checked {
                            session: fresh,
                            acknowledged: 0,
                        });
                    }
                    (Err(_), Some(session)) => session.handle_datagram(&datagram, now),
                    (Err(_), None) => {}
                }
            }
            if let Some(session) = &mut session {
                for datagram in session.transmissions(extent) {
                    self.to_client.send(datagram, now, &mut self.random);
                }
            }
        }
        panic!("the transfer does not end");
    }
}

/// A session with the promises that hold for every transmission.
struct Checked {
    session: Session,
    acknowledged: u64,
}

impl Checked {
    fn handle_datagram(&mut self, datagram: &[u8], now: Instant) {
        self.session.handle_datagram(datagram, now);
        let blksize = u64::from(self.session.granted().blksize);
        self.acknowledged = self.session.figures().bytes / blksize;
    }

    fn transmissions(&mut self, extent: Extent) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while let Some(transmit) = self.session.poll_transmit() {
            match transmit {
                Transmit::Oack => datagrams.push(self.session.oack()),
                Transmit::Error(refusal) => datagrams.push(refusal.datagram()),
                Transmit::Data(range) => {
                    let window = u64::from(self.session.granted().windowsize);
                    assert!(!range.is_empty(), "an empty range");
                    assert!(
                        range.start > self.acknowledged,
                        "sends what is acknowledged"
                    );
                    assert!(
                        range.end <= self.acknowledged + 1 + window,
                        "more than a window"
                    );
                    assert!(
                        self.session.is_proven() || range == (1..2),
                        "more than one block"
                    );
                    for index in range {
                        datagrams.push(self.data(index, extent));
                    }
                }
            }
        }
        assert!(
            self.session.is_proven() || datagrams.len() <= 1,
            "unproven, more than one packet"
        );
        datagrams
    }

    fn data(&self, index: u64, extent: Extent) -> Vec<u8> {
        let bytes = self.session.block_bytes(index);
        let blksize = u64::from(self.session.granted().blksize);
        assert!(bytes.end <= extent.len, "a byte outside the file");
        assert_eq!(
            bytes.start,
            (index - 1) * blksize,
            "a block that does not exist"
        );
        assert!(
            extent.complete || bytes.end - bytes.start == blksize,
            "a short block too early"
        );
        let mut datagram = data_header(super::block::Block::from_index(index)).to_vec();
        datagram.extend(bytes.map(byte_at));
        datagram
    }
}
