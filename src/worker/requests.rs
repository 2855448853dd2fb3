//! The table of requests: what a new one means for those that are there.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use r_tftpd_broker::wire::Endpoint;

use super::ticket::{Ending, Phase, Ticket};
use crate::tftp::packet::Request;

/// All requests of a thread that have not ended.
pub(crate) struct Requests {
    by_id: HashMap<u64, Listed>,
    /// The one that answers this peer. Those that are ending are no longer in it.
    by_peer: HashMap<Endpoint, u64>,
    /// By number of arrival: the oldest first.
    unproven: BTreeMap<u64, u64>,
    max_unproven: usize,
    arrivals: u64,
}

struct Listed {
    ticket: Rc<Ticket>,
    arrival: u64,
}

/// What to do with a request.
pub(crate) enum Admission {
    /// The client has not seen our answer yet: the transfer that is there repeats it.
    Repeat(Rc<Ticket>),
    /// It is new; the one that answered this peer, if there was one, ends.
    New {
        /// The one that ends.
        replaced: Option<Rc<Ticket>>,
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
        }
    }

    /// What `request` of `peer` means.
    ///
    /// The same request again, options included, is a repetition as long as the client has not
    /// answered. Otherwise it has begun anew and the old transfer would answer into the void.
    /// Other options or another name are always a new request: firmware asks again without
    /// options, or for the next file, from the same port.
    pub(crate) fn admit(&self, peer: Endpoint, request: &Request) -> Admission {
        let listed = self.by_peer.get(&peer).and_then(|id| self.by_id.get(id));
        match listed.map(|listed| &listed.ticket) {
            Some(old) if is_unproven(old) && old.request.as_ref() == Some(request) => {
                Admission::Repeat(Rc::clone(old))
            }
            old => Admission::New {
                replaced: old.cloned(),
            },
        }
    }

    /// Adds a request. Returns the oldest unproven one if it has to give way.
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
        self.by_peer.insert(ticket.peer, ticket.id);
        self.unproven.insert(arrival, ticket.id);
        self.by_id.insert(ticket.id, Listed { ticket, arrival });
        oldest
    }

    /// The client has answered: it no longer gives way.
    pub(crate) fn prove(&mut self, id: u64) {
        if let Some(listed) = self.by_id.get(&id) {
            self.unproven.remove(&listed.arrival);
        }
    }

    /// It is ending: its peer and its share of the unproven ones are free for others.
    pub(crate) fn detach(&mut self, ticket: &Ticket) {
        self.prove(ticket.id);
        if self.by_peer.get(&ticket.peer) == Some(&ticket.id) {
            self.by_peer.remove(&ticket.peer);
        }
    }

    /// It has ended.
    pub(crate) fn remove(&mut self, ticket: &Ticket) {
        self.detach(ticket);
        self.by_id.remove(&ticket.id);
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
}

fn is_unproven(ticket: &Ticket) -> bool {
    match ticket.phase() {
        Phase::Opening | Phase::AwaitingScratch | Phase::Unproven => {
            ticket.ending() != Some(Ending::Replaced)
        }
        Phase::Waiting | Phase::Proven => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use r_tftpd_broker::wire;

    use super::super::tests::harness::file;
    use super::*;
    use crate::tftp::packet::parse_request;

    fn request(words: &[&str]) -> Request {
        let words: String = words.iter().map(|word| format!("{word}\0")).collect();
        parse_request(&[&[0, 1], words.as_bytes()].concat()).unwrap()
    }

    fn peer(port: u16) -> Endpoint {
        SocketAddr::from(([192, 0, 2, 1], port)).into()
    }

    fn ticket(id: u64, port: u16, request: Request) -> Rc<Ticket> {
        let (peer, local) = (peer(port), peer(69));
        let asked = wire::Request {
            id,
            peer,
            local,
            mtu: 0,
            datagram: vec![],
        };
        Rc::new(Ticket::new(
            &asked,
            Some(request),
            file(b"").into(),
            Instant::now(),
        ))
    }

    fn is_repeat(requests: &Requests, port: u16, words: &[&str]) -> bool {
        matches!(
            requests.admit(peer(port), &request(words)),
            Admission::Repeat(_)
        )
    }

    fn replaces(requests: &Requests, port: u16, words: &[&str]) -> Option<u64> {
        match requests.admit(peer(port), &request(words)) {
            Admission::New { replaced } => replaced.map(|ticket| ticket.id),
            Admission::Repeat(_) => None,
        }
    }

    #[test]
    fn only_the_same_request_from_the_same_port_is_a_repetition() {
        let mut requests = Requests::new(10);
        let words = ["f", "octet", "blksize", "1468"];
        requests.insert(ticket(1, 1000, request(&words)));
        assert!(is_repeat(&requests, 1000, &words));
        assert!(!is_repeat(&requests, 1001, &words));
        assert_eq!(replaces(&requests, 1001, &words), None);
        for other in [
            &["g", "octet", "blksize", "1468"][..],
            &["f", "octet"],
            &["f", "netascii"],
        ] {
            assert_eq!(replaces(&requests, 1000, other), Some(1), "{other:?}");
        }
    }

    #[test]
    fn once_proven_the_same_request_replaces() {
        let mut requests = Requests::new(10);
        let old = ticket(1, 1000, request(&["f", "octet"]));
        requests.insert(Rc::clone(&old));
        old.set_phase(Phase::Proven);
        requests.prove(1);
        assert_eq!(replaces(&requests, 1000, &["f", "octet"]), Some(1));
        assert_eq!(requests.unproven(), 0);
    }

    #[test]
    fn the_end_of_a_replaced_request_leaves_its_successor() {
        let mut requests = Requests::new(10);
        let old = ticket(1, 1000, request(&["f", "octet"]));
        requests.insert(Rc::clone(&old));
        requests.detach(&old);
        requests.insert(ticket(2, 1000, request(&["g", "octet"])));
        requests.remove(&old);
        assert!(is_repeat(&requests, 1000, &["g", "octet"]));
        assert_eq!(requests.unproven(), 1);
    }

    #[test]
    fn the_oldest_unproven_gives_way_and_the_proven_never() {
        let mut requests = Requests::new(2);
        let first = ticket(1, 1, request(&["f", "octet"]));
        assert!(requests.insert(Rc::clone(&first)).is_none());
        requests.prove(1);
        for id in [2, 3] {
            let port = u16::try_from(id).unwrap();
            assert!(
                requests
                    .insert(ticket(id, port, request(&["f", "octet"])))
                    .is_none()
            );
        }
        let oldest = requests.insert(ticket(4, 4, request(&["f", "octet"])));
        assert_eq!(oldest.map(|ticket| ticket.id), Some(2));
        assert_eq!(requests.unproven(), 2);
        assert!(requests.find(1).is_some());
    }
}
