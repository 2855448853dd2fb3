//! The table of requests: what a new one means for those that are there.
//!
//! **Two requests from one port.** A client repeats a request that seems lost. Where both wait for
//! us, in a boot storm or after a restart, it gets two answers and keeps to one of them; a client
//! that was switched off and on asks anew from the same port; and one that has all of a file asks
//! for the next one before we have seen its last ACK. From here they look the same, only the
//! client knows which request it means. Therefore a port can have two: the *first* and its
//! *challenger*.
//!
//! - The challenger answers like any other request. When the client answers it, the first ends.
//! - As long as the client is heard on neither, the first one keeps quiet. When it is heard on the
//!   first one that goes on, and the challenger ends by itself, by the client's ERROR or in silence.
//! - A request equal to one of the two that is still unproven makes that one send again.
//! - A third request takes the place of the challenger.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use r_tftpd_broker::memory::{self, Peak};
use r_tftpd_broker::wire::Endpoint;

use super::ticket::{Phase, Ticket};
use crate::tftp::packet::Request;

/// All requests of a thread that have not ended.
pub(crate) struct Requests {
    by_id: HashMap<u64, Listed>,
    /// Those that answer a port of a client. Those that are ending are no longer in it.
    by_peer: HashMap<Endpoint, Port>,
    /// By number of arrival: the oldest first.
    unproven: BTreeMap<u64, u64>,
    max_unproven: usize,
    arrivals: u64,
    peak: Peak,
}

struct Listed {
    ticket: Rc<Ticket>,
    arrival: u64,
}

/// The ids of the requests of one port.
#[derive(Clone, Copy)]
struct Port {
    first: u64,
    challenger: Option<u64>,
}

/// What to do with a request.
pub(crate) enum Admission {
    /// The client has not seen our answer yet: the transfer that is there repeats it.
    Repeat(Rc<Ticket>),
    /// It is new.
    New {
        /// The one that the client no longer waits for, if there is one, ends.
        outdated: Option<Rc<Ticket>>,
    },
}

impl Requests {
    /// An empty table that holds at most `max_unproven` unproven ones.
    pub(crate) fn new(max_unproven: u32) -> Self {
        Self {
            by_id: HashMap::new(),
            by_peer: HashMap::new(),
            unproven: BTreeMap::new(),
            max_unproven: usize::try_from(max_unproven).unwrap_or(usize::MAX).max(1),
            arrivals: 0,
            peak: Peak::default(),
        }
    }

    /// What `request` of `peer` means.
    ///
    /// The same request again, options included, is a repetition as long as the client has not
    /// answered. Everything else is a new request: firmware asks again without options, or for
    /// the next file, from the same port. What was not answered by us yet is outdated by that: its
    /// answer would come to a client that waits for another one.
    pub(crate) fn admit(&self, peer: Endpoint, request: &Request) -> Admission {
        let (first, challenger) = self.of_peer(peer);
        let equal = [challenger, first]
            .into_iter()
            .flatten()
            .find(|old| is_unproven(old) && old.request.as_ref() == Some(request));
        if let Some(equal) = equal {
            return Admission::Repeat(Rc::clone(equal));
        }
        let outdated = challenger.or(first.filter(|first| is_unanswered(first)));
        Admission::New {
            outdated: outdated.cloned(),
        }
    }

    /// Adds a request, as a challenger if there is one of that port already. Returns the oldest
    /// unproven one if it has to give way.
    pub(crate) fn insert(&mut self, ticket: Rc<Ticket>) -> Option<Rc<Ticket>> {
        let oldest = if self.unproven.len() >= self.max_unproven {
            let id = self.unproven.first_key_value().map(|(_, id)| *id);
            id.and_then(|id| self.find(id)).cloned()
        } else {
            None
        };
        if let Some(oldest) = &oldest {
            self.detach(oldest);
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.insert_port(&ticket);
        self.unproven.insert(arrival, ticket.id);
        self.by_id.insert(ticket.id, Listed { ticket, arrival });
        self.peak.rise(self.by_id.len());
        oldest
    }

    fn insert_port(&mut self, ticket: &Ticket) {
        let alone = Port {
            first: ticket.id,
            challenger: None,
        };
        let port = self.by_peer.entry(ticket.peer).or_insert(alone);
        if port.first == ticket.id {
            return;
        }
        port.challenger = Some(ticket.id);
        if let Some(first) = self.by_id.get(&port.first).map(|listed| &listed.ticket) {
            first.set_challenged(true);
            ticket.set_repetition(is_same_file(first, ticket));
        }
    }

    /// The client has answered: it no longer gives way.
    pub(crate) fn prove(&mut self, id: u64) {
        if let Some(listed) = self.by_id.get(&id) {
            self.unproven.remove(&listed.arrival);
        }
    }

    /// The client has acknowledged something of `ticket`. Returns the one that it has left for
    /// that, which ends.
    pub(crate) fn choose(&self, ticket: &Ticket) -> Option<Rc<Ticket>> {
        let (first, challenger) = self.of_peer(ticket.peer);
        challenger.filter(|challenger| challenger.id == ticket.id)?;
        ticket.set_repetition(false);
        first.cloned()
    }

    /// It is ending: its port and its share of the unproven ones are free for others.
    pub(crate) fn detach(&mut self, ticket: &Ticket) {
        self.prove(ticket.id);
        let Some(port) = self.by_peer.get(&ticket.peer).copied() else {
            return;
        };
        let left = match port.challenger {
            Some(challenger) if challenger == ticket.id => port.first,
            Some(challenger) if port.first == ticket.id => challenger,
            None if port.first == ticket.id => {
                self.by_peer.remove(&ticket.peer);
                return;
            }
            _ => return,
        };
        let alone = Port {
            first: left,
            challenger: None,
        };
        self.by_peer.insert(ticket.peer, alone);
        if let Some(left) = self.find(left) {
            left.set_challenged(false);
        }
    }

    /// It has ended.
    pub(crate) fn remove(&mut self, ticket: &Ticket) {
        self.detach(ticket);
        self.by_id.remove(&ticket.id);
        if self.peak.has_ebbed(self.by_id.len()) {
            self.by_id.shrink_to_fit();
            self.by_peer.shrink_to_fit();
            memory::give_back();
        }
    }

    /// A request by its id.
    pub(crate) fn find(&self, id: u64) -> Option<&Rc<Ticket>> {
        self.by_id.get(&id).map(|listed| &listed.ticket)
    }

    /// Requests whose client has not answered yet.
    pub(crate) fn unproven(&self) -> usize {
        self.unproven.len()
    }

    /// All requests, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Ticket>> {
        self.by_id.values().map(|listed| &listed.ticket)
    }

    /// Nothing is left but requests that have ended and for which the broker still opens a file.
    pub(crate) fn is_idle(&self) -> bool {
        self.iter()
            .all(|ticket| ticket.phase() == Phase::Opening && ticket.ending().is_some())
    }

    /// The first request of a port and its challenger.
    fn of_peer(&self, peer: Endpoint) -> (Option<&Rc<Ticket>>, Option<&Rc<Ticket>>) {
        let port = self.by_peer.get(&peer);
        let first = port.and_then(|port| self.find(port.first));
        let challenger = port.and_then(|port| self.find(port.challenger?));
        (first, challenger)
    }
}

/// The client has not answered.
fn is_unproven(ticket: &Ticket) -> bool {
    match ticket.phase() {
        Phase::Opening | Phase::AwaitingScratch | Phase::Unproven => true,
        Phase::Waiting | Phase::Proven => false,
    }
}

/// We have not answered: nothing was sent.
fn is_unanswered(ticket: &Ticket) -> bool {
    matches!(ticket.phase(), Phase::Opening | Phase::AwaitingScratch)
}

fn is_same_file(one: &Ticket, other: &Ticket) -> bool {
    let file = |ticket: &Ticket| {
        let request = ticket.request.as_ref()?;
        Some((request.kind, request.name.clone()))
    };
    file(one) == file(other)
}

#[cfg(test)]
mod tests;
