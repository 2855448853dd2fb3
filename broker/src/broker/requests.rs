//! The outstanding requests: which of its messages the worker may still send for each.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::budget::REFUSED;
use super::limits::{Excess, Limits};
use super::proxy::Lead;
use super::scratch::{Memory, Scratch};
use crate::memory::{self, Peak};
use crate::wire::MAX_SCRATCH;

/// All requests from their admission until the worker says `Done`.
#[derive(Debug)]
pub(super) struct Requests {
    limits: Limits,
    scratch: Scratch,
    outstanding: HashMap<u64, Outstanding>,
    proven: u64,
    last_id: u64,
    peak: Peak,
}

#[derive(Debug)]
struct Outstanding {
    peer: SocketAddr,
    /// Bytes of the prefix's budget.
    charged: u64,
    file: File,
    /// Where a link leads, until it is fetched.
    lead: Option<Box<Lead>>,
    /// A memory file was asked for.
    scratched: bool,
    memory: Option<Memory>,
    proven: bool,
    /// What its reply socket can be kept under.
    socket: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    NotAsked,
    Asked,
    Granted,
    /// The name leads to an origin.
    Linked,
    Refused,
}

/// What came of an `Open`.
#[derive(Debug)]
pub(super) enum Answered {
    Granted,
    Linked(Lead),
    Refused,
}

/// What no honest worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// The id is not outstanding.
    UnknownId,
    /// A message that is allowed once was sent again.
    Repeated,
    /// `Scratch` without a granted file, or too large.
    Scratch,
    /// `Done`: it keeps a socket that was made for one request.
    Kept,
    /// A path longer than any request.
    PathTooLong,
    /// `Fetch` without a link.
    Fetch,
    /// A validator longer than any that is kept.
    ValidatorTooLong,
    /// The job was never given.
    UnknownJob,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownId => "it names a request that is not outstanding",
            Self::Repeated => "it asks again what can be asked once",
            Self::Scratch => "it asks for a memory file that no file needs",
            Self::Kept => "it keeps a socket that is not to be kept",
            Self::PathTooLong => "it asks for a path longer than a request",
            Self::Fetch => "it wants to fetch what no link names",
            Self::ValidatorTooLong => "it sends a validator longer than any",
            Self::UnknownJob => "it names a job that was never given",
        })
    }
}

impl Requests {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            scratch: Scratch::default(),
            outstanding: HashMap::new(),
            proven: 0,
            last_id: 0,
            peak: Peak::default(),
        }
    }

    /// Takes a request in, or says why not; returns its id.
    pub(super) fn admit(&mut self, peer: SocketAddr, now: Instant) -> Result<u64, Excess> {
        let charged = self.limits.admit(peer.ip(), self.last_id + 1, now)?;
        self.last_id += 1;
        let file = File::NotAsked;
        let request = Outstanding {
            peer,
            charged,
            file,
            lead: None,
            scratched: false,
            memory: None,
            proven: false,
            socket: None,
        };
        self.outstanding.insert(self.last_id, request);
        self.peak.rise(self.outstanding.len());
        Ok(self.last_id)
    }

    /// The request that has to end for the one of `peer` that was admitted last. Its id lives until
    /// the worker says `Done`.
    pub(super) fn give_way(&mut self, peer: SocketAddr, now: Instant) -> Option<u64> {
        self.limits.give_way(peer.ip(), now)
    }

    /// Forgets a request that the worker has never heard of.
    pub(super) fn withdraw(&mut self, id: u64, now: Instant) {
        if let Some(request) = self.outstanding.remove(&id) {
            self.limits.release(request.peer.ip(), id);
            self.limits.refund(request.peer.ip(), request.charged, now);
        }
    }

    /// `Open`: who asks.
    pub(super) fn open(&mut self, id: u64) -> Result<SocketAddr, Violation> {
        let request = self.find(id)?;
        if request.file != File::NotAsked {
            return Err(Violation::Repeated);
        }
        request.file = File::Asked;
        Ok(request.peer)
    }

    /// Who asked for what is still outstanding.
    pub(super) fn peer(&self, id: u64) -> Option<SocketAddr> {
        self.outstanding.get(&id).map(|request| request.peer)
    }

    /// What came of an `Open`; nothing happens if the request has ended.
    pub(super) fn answer_open(&mut self, id: u64, answer: Answered) {
        let Some(request) = self.outstanding.get_mut(&id) else {
            return;
        };
        request.file = match answer {
            Answered::Granted => File::Granted,
            Answered::Linked(lead) => {
                request.lead = Some(Box::new(lead));
                File::Linked
            }
            Answered::Refused => File::Refused,
        };
    }

    /// `Fetch`: where the link leads, and who asked.
    pub(super) fn fetch(&mut self, id: u64) -> Result<(Lead, SocketAddr), Violation> {
        let request = self.find(id)?;
        if request.file != File::Linked {
            return Err(Violation::Fetch);
        }
        let lead = request.lead.take().ok_or(Violation::Repeated)?;
        Ok((*lead, request.peer))
    }

    /// `Scratch`: the memory file, none if there is no place for it.
    pub(super) fn scratch(
        &mut self,
        id: u64,
        size: u64,
    ) -> Result<Option<std::os::fd::OwnedFd>, Violation> {
        let request = self.outstanding.get_mut(&id).ok_or(Violation::UnknownId)?;
        if request.scratched {
            return Err(Violation::Repeated);
        }
        let has_source = matches!(request.file, File::Granted | File::Linked);
        if !has_source || size > MAX_SCRATCH {
            return Err(Violation::Scratch);
        }
        request.scratched = true;
        let Some((file, memory)) = self.scratch.create(size) else {
            return Ok(None);
        };
        request.memory = Some(memory);
        Ok(Some(file))
    }

    /// `Proven`.
    pub(super) fn prove(&mut self, id: u64, now: Instant) -> Result<(), Violation> {
        let request = self.find(id)?;
        if request.proven {
            return Err(Violation::Repeated);
        }
        request.proven = true;
        let (peer, charged) = (request.peer, std::mem::take(&mut request.charged));
        self.proven += 1;
        self.limits.prove(id);
        self.limits.refund(peer.ip(), charged, now);
        Ok(())
    }

    /// The reply socket of a request can be kept.
    pub(super) fn note_socket(&mut self, id: u64, number: u16) {
        if let Some(request) = self.outstanding.get_mut(&id) {
            request.socket = Some(number);
        }
    }

    /// `Done`: the number of the reply socket, if it has one.
    pub(super) fn done(
        &mut self,
        id: u64,
        proven: bool,
        now: Instant,
    ) -> Result<Option<u16>, Violation> {
        let request = self.outstanding.remove(&id).ok_or(Violation::UnknownId)?;
        let peer = request.peer.ip();
        self.proven -= u64::from(request.proven);
        if let Some(memory) = &request.memory {
            self.scratch.release(memory);
        }
        self.limits.release(peer, id);
        let spent = match request.file {
            _ if proven => 0,
            File::Granted | File::Linked | File::Asked => request.charged,
            // All that can have been sent is an ERROR.
            File::NotAsked | File::Refused => REFUSED,
        };
        self.limits
            .refund(peer, request.charged.saturating_sub(spent), now);
        if self.peak.has_ebbed(self.outstanding.len()) {
            self.outstanding.shrink_to_fit();
            self.limits.shrink(now);
            memory::give_back();
        }
        Ok(request.socket)
    }

    /// Requests whose peer has answered, and those whose peer has not.
    pub(super) fn counts(&self) -> (u64, u64) {
        let all = u64::try_from(self.outstanding.len()).unwrap_or(u64::MAX);
        (self.proven, all.saturating_sub(self.proven))
    }

    /// Requests taken since the start.
    pub(super) fn taken(&self) -> u64 {
        self.last_id
    }

    fn find(&mut self, id: u64) -> Result<&mut Outstanding, Violation> {
        self.outstanding.get_mut(&id).ok_or(Violation::UnknownId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> (Requests, Instant) {
        (
            Requests::new(Limits::new(Vec::new(), Vec::new(), 8, 100)),
            Instant::now(),
        )
    }

    fn admit(requests: &mut Requests, now: Instant) -> u64 {
        requests
            .admit("192.0.2.1:1069".parse().unwrap(), now)
            .unwrap()
    }

    #[test]
    fn a_request_goes_its_way() {
        let (mut requests, now) = requests();
        let id = admit(&mut requests, now);
        assert_eq!(requests.counts(), (0, 1));
        assert_eq!(requests.open(id).unwrap().port(), 1069);
        requests.answer_open(id, Answered::Granted);
        assert!(requests.scratch(id, 10).unwrap().is_some());
        assert_eq!(requests.prove(id, now), Ok(()));
        assert_eq!(requests.counts(), (1, 0));
        assert_eq!(requests.done(id, true, now), Ok(None));
        assert_eq!((requests.counts(), requests.taken()), ((0, 0), 1));
    }

    #[test]
    fn nothing_can_be_asked_twice() {
        let (mut requests, now) = requests();
        let id = admit(&mut requests, now);
        requests.open(id).unwrap();
        assert_eq!(requests.open(id), Err(Violation::Repeated));
        requests.answer_open(id, Answered::Granted);
        assert_eq!(requests.open(id), Err(Violation::Repeated));
        requests.scratch(id, 10).unwrap();
        assert_eq!(requests.scratch(id, 10).unwrap_err(), Violation::Repeated);
        requests.prove(id, now).unwrap();
        assert_eq!(requests.prove(id, now), Err(Violation::Repeated));
    }

    #[test]
    fn an_id_that_was_never_given_or_has_ended_is_unknown() {
        let (mut requests, now) = requests();
        assert_eq!(requests.open(1), Err(Violation::UnknownId));
        let id = admit(&mut requests, now);
        requests.done(id, false, now).unwrap();
        assert_eq!(requests.open(id), Err(Violation::UnknownId));
        assert_eq!(requests.scratch(id, 1).unwrap_err(), Violation::UnknownId);
        assert_eq!(requests.prove(id, now), Err(Violation::UnknownId));
        assert_eq!(requests.done(id, false, now), Err(Violation::UnknownId));
        assert_eq!(requests.peer(id), None);
        assert_eq!(admit(&mut requests, now), id + 1);
    }

    #[test]
    fn a_memory_file_needs_a_granted_file_and_a_size_within_the_limit() {
        let (mut requests, now) = requests();
        let id = admit(&mut requests, now);
        assert_eq!(requests.scratch(id, 1).unwrap_err(), Violation::Scratch);
        requests.open(id).unwrap();
        assert_eq!(requests.scratch(id, 1).unwrap_err(), Violation::Scratch);
        requests.answer_open(id, Answered::Refused);
        assert_eq!(requests.scratch(id, 1).unwrap_err(), Violation::Scratch);
        let id = admit(&mut requests, now);
        requests.open(id).unwrap();
        requests.answer_open(id, Answered::Granted);
        assert_eq!(
            requests.scratch(id, MAX_SCRATCH + 1).unwrap_err(),
            Violation::Scratch
        );
    }

    #[test]
    fn an_ended_request_gives_its_place_and_memory_back() {
        let (mut requests, now) = requests();
        for _ in 0..100 {
            let id = admit(&mut requests, now);
            requests.open(id).unwrap();
            requests.answer_open(id, Answered::Granted);
            assert!(requests.scratch(id, MAX_SCRATCH).unwrap().is_some());
            requests.done(id, false, now).unwrap();
        }
    }

    #[test]
    fn a_withdrawn_request_costs_nothing() {
        let (mut requests, now) = requests();
        for _ in 0..20_000 {
            let id = admit(&mut requests, now);
            requests.withdraw(id, now);
        }
        assert_eq!(requests.counts(), (0, 0));
    }
}
