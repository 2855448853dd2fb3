//! One transfer from the client's side, without copies: payloads are compared where they arrive.

use std::net::{SocketAddrV4, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use r_tftpd_bench::chance::Chance;

use crate::options::Options;
use crate::receive::Buffer;

/// What came of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Not over.
    GoesOn,
    /// Every byte arrived as expected, or the right ERROR.
    Finished,
    /// An ERROR with this code.
    Refused(u16),
    /// A byte or a size is not as expected.
    Wrong,
}

/// What sessions do beside receiving blocks in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Bytes received in order and compared.
    pub bytes: u64,
    /// Requests sent again: lost on the way, or answered late.
    pub requests_again: u64,
    /// ACKs sent again after a silence.
    pub acks_again: u64,
    /// Blocks received that were not the next one.
    pub unexpected: u64,
}

/// A transfer. `ask`, then `handle_readable` whenever its socket is readable and `handle_time`
/// every few milliseconds, until it is over.
pub struct Session {
    socket: Rc<UdpSocket>,
    /// Of the server, once it has answered.
    tid: Option<SocketAddrV4>,
    connected: bool,
    asked_blksize: usize,
    asked_windowsize: u64,
    blksize: usize,
    windowsize: u64,
    /// Blocks received in order.
    last: u64,
    acknowledged: u64,
    /// The gap after `last` has been reported.
    reported: bool,
    is_slow: bool,
    /// When a slow reader answers.
    answer_at: Option<Instant>,
    chance: Chance,
    /// When the end of a window was dropped, and how long its repair took.
    dropped: Option<Instant>,
    repair: Option<Duration>,
    asked: Instant,
    /// Of the last progress, or of the last repetition.
    moved: Instant,
    /// What has happened in it.
    pub counts: Counts,
}

/// A lost request is repeated after this: no client is quicker with it.
const REQUEST_SILENCE: Duration = Duration::from_secs(1);

/// The window whose end is dropped: by then the server knows the round trip.
const DROPPED_WINDOW: u64 = 8;

/// Blocks after which a transfer is taken for a long one: its socket is connected, so that the
/// kernel keeps out others.
const LONG: u64 = 8;

impl Session {
    /// The session of place `slot` that is the `serial`th in all. Sends nothing yet.
    pub fn new(options: &Options, slot: usize, serial: usize, socket: Rc<UdpSocket>) -> Self {
        let seed = (options.seed << 32) + u64::try_from(serial).expect("a number");
        let now = Instant::now();
        Self {
            socket,
            tid: None,
            connected: false,
            asked_blksize: options.blksize[serial % options.blksize.len()],
            asked_windowsize: options.windowsize[serial % options.windowsize.len()],
            blksize: 512,
            windowsize: 1,
            last: 0,
            acknowledged: 0,
            reported: false,
            is_slow: slot < options.slow,
            answer_at: None,
            chance: Chance::of(seed, options.loss),
            dropped: None,
            repair: None,
            asked: now,
            moved: now,
            counts: Counts::default(),
        }
    }

    /// Sends the request.
    pub fn ask(&mut self, options: &Options, now: Instant) {
        self.asked = now;
        self.moved = now;
        self.send_request(options);
    }

    /// The socket of a session that is over, if it can serve another one.
    pub fn socket(self) -> Option<Rc<UdpSocket>> {
        (!self.connected).then_some(self.socket)
    }

    /// When it sent its request.
    pub fn asked(&self) -> Instant {
        self.asked
    }

    /// Whether it answers late.
    pub fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// From the loss of a window's end to its repair.
    pub fn repair(&self) -> Option<Duration> {
        self.repair
    }

    /// Takes everything that has arrived.
    pub fn handle_readable(
        &mut self,
        options: &Options,
        buffer: &mut Buffer,
        now: Instant,
    ) -> Step {
        let socket = Rc::clone(&self.socket);
        let mut step = Step::GoesOn;
        loop {
            let more = buffer.receive(&socket, |datagrams, from| {
                if *self.tid.get_or_insert(from) == from {
                    step = self.handle_datagrams(options, datagrams, now);
                }
                step == Step::GoesOn
            });
            if step != Step::GoesOn || !more {
                break;
            }
        }
        if step == Step::GoesOn
            && !self.connected
            && self.last >= LONG
            && let Some(tid) = self.tid
        {
            self.socket.connect(tid).expect("connect");
            self.connected = true;
        }
        step
    }

    /// Repeats itself after a silence; answers if it is a slow reader whose time has come.
    pub fn handle_time(&mut self, options: &Options, now: Instant) {
        if self.answer_at.is_some_and(|at| at <= now) {
            self.answer_at = None;
            self.moved = now;
            self.send_ack();
        }
        let silent = now.saturating_duration_since(self.moved);
        if self.tid.is_none() {
            if silent >= REQUEST_SILENCE.max(options.silence) {
                self.moved = now;
                self.counts.requests_again += 1;
                self.send_request(options);
            }
        } else if silent >= options.silence && self.answer_at.is_none() && !self.awaits_repair() {
            self.moved = now;
            self.counts.acks_again += 1;
            self.send_ack();
        }
    }

    /// One datagram, or several that GRO has put together.
    fn handle_datagrams(&mut self, options: &Options, bytes: &[u8], now: Instant) -> Step {
        match bytes {
            [0, 3, ..] => bytes
                .chunks(4 + self.blksize)
                .map(|datagram| self.handle_data(options, datagram, now))
                .find(|step| *step != Step::GoesOn)
                .unwrap_or(Step::GoesOn),
            [0, 6, words @ ..] if self.last == 0 => {
                self.moved = now;
                let step = self.take_options(options, words);
                self.acknowledge(options, now);
                step
            }
            [0, 5, 0, 1, ..] if options.expected.is_none() => Step::Finished,
            [0, 5, high, low, ..] => Step::Refused(u16::from_be_bytes([*high, *low])),
            _ => Step::GoesOn,
        }
    }

    fn handle_data(&mut self, options: &Options, datagram: &[u8], now: Instant) -> Step {
        let [_, _, high, low, payload @ ..] = datagram else {
            return Step::GoesOn; // Damaged on the way.
        };
        let Some(file) = &options.expected else {
            return Step::Wrong;
        };
        if self.chance.happens() {
            return Step::GoesOn;
        }
        let block = u16::from_be_bytes([*high, *low]);
        if u64::from(block) != (self.last + 1) & 0xffff {
            self.counts.unexpected += 1;
            self.report_gap(options);
            return Step::GoesOn;
        }
        if options.lose_window_end && self.loses_window_end(now) {
            return Step::GoesOn;
        }
        let start = usize::try_from(self.last).expect("a file in memory") * self.blksize;
        let end = file.len().min(start + self.blksize);
        if file.get(start..end) != Some(payload) {
            return Step::Wrong;
        }
        self.last += 1;
        self.moved = now;
        self.reported = false;
        self.counts.bytes += u64::try_from(payload.len()).expect("a length");
        if payload.len() < self.blksize {
            // The last one is never lost: nobody would repeat it.
            self.send(&self.ack());
            return Step::Finished;
        }
        if self.last - self.acknowledged >= self.windowsize {
            self.acknowledge(options, now);
        }
        Step::GoesOn
    }

    /// Drops the last block of one window, once. Nothing follows it that would show the gap.
    fn loses_window_end(&mut self, now: Instant) -> bool {
        let next = self.last + 1;
        match self.dropped {
            None if next == DROPPED_WINDOW * self.windowsize => {
                self.dropped = Some(now);
                true
            }
            Some(at) if next == DROPPED_WINDOW * self.windowsize => {
                self.repair.get_or_insert(now - at);
                false
            }
            _ => false,
        }
    }

    fn awaits_repair(&self) -> bool {
        self.dropped.is_some() && self.repair.is_none()
    }

    /// One report of each gap, or one for each block that shows it. In lock-step a duplicate is
    /// ignored.
    fn report_gap(&mut self, options: &Options) {
        if self.windowsize > 1 && (options.ack_all || !self.reported) {
            self.reported = true;
            self.acknowledged = self.last;
            self.send_ack();
        }
    }

    /// Of a whole window, or of the OACK.
    fn acknowledge(&mut self, options: &Options, now: Instant) {
        self.acknowledged = self.last;
        if self.is_slow {
            // What the server sends again meanwhile makes it no slower.
            self.answer_at.get_or_insert(now + options.slowness);
        } else {
            self.send_ack();
        }
    }

    /// Takes what the OACK grants.
    fn take_options(&mut self, options: &Options, words: &[u8]) -> Step {
        let text = String::from_utf8_lossy(words).to_lowercase();
        let words: Vec<&str> = text.split('\0').collect();
        for pair in words.chunks_exact(2) {
            let [name, value] = pair else { continue };
            let Ok(value) = value.parse::<usize>() else {
                return Step::Wrong;
            };
            match *name {
                "blksize" if value <= self.asked_blksize => self.blksize = value,
                "windowsize" if value > 0 => self.windowsize = value.try_into().expect("a number"),
                // What a server can know of netascii beforehand differs.
                "tsize" if options.netascii => {}
                "tsize" if options.expected.as_ref().is_some_and(|f| f.len() == value) => {}
                _ => return Step::Wrong,
            }
        }
        Step::GoesOn
    }

    fn send_request(&self, options: &Options) {
        let mode = if options.netascii {
            "netascii"
        } else {
            "octet"
        };
        let mut request = format!("\0\x01{}\0{mode}\0", options.name);
        if self.asked_blksize != 512 {
            request += &format!("blksize\0{}\0", self.asked_blksize);
        }
        if self.asked_windowsize != 1 {
            request += &format!("windowsize\0{}\0", self.asked_windowsize);
        }
        if options.tsize {
            request += "tsize\x000\0";
        }
        // What is lost here is repeated after a silence.
        let _ = self.socket.send_to(request.as_bytes(), options.server);
    }

    /// The ACK of the last block in order, unless it is lost.
    fn send_ack(&mut self) {
        if !self.chance.happens() {
            self.send(&self.ack());
        }
    }

    fn ack(&self) -> [u8; 4] {
        let [.., high, low] = self.last.to_be_bytes();
        [0, 4, high, low]
    }

    fn send(&self, packet: &[u8]) {
        // As for requests.
        let _ = match self.tid {
            Some(tid) if !self.connected => self.socket.send_to(packet, tid),
            _ => self.socket.send(packet),
        };
    }
}
