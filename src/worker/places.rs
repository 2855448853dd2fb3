//! The places for proven transfers (`--max-connections`) and the line in front of them.
//!
//! Only a client that has answered gets in line, so a flood of requests from forged addresses
//! takes neither places nor turns. Who is in line is not left without an answer: see
//! [`super::transfer`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::ticket::Ticket;

/// All places of a thread.
pub(crate) struct Places {
    free: Cell<u32>,
    taken: Cell<u32>,
    line: RefCell<VecDeque<Rc<Ticket>>>,
}

/// One place, taken. Goes to the first in line, or is free again, when it is dropped.
pub(crate) struct Place(Rc<Places>);

impl Places {
    /// `count` free places.
    pub(crate) fn new(count: u32) -> Rc<Self> {
        let (free, taken) = (Cell::new(count), Cell::new(0));
        Rc::new(Self {
            free,
            taken,
            line: RefCell::default(),
        })
    }

    /// A place, if one is free and nobody is in line for it.
    pub(crate) fn take(self: &Rc<Self>) -> Option<Place> {
        let left = self.free.get().checked_sub(1)?;
        self.free.set(left);
        self.taken.set(self.taken.get() + 1);
        Some(Place(Rc::clone(self)))
    }

    /// Puts a ticket into the line; its turn comes by [`Ticket::give_place`]. At the end, unless it
    /// comes after a request that the same client has left for it: then it inherits that one's
    /// place, in the line or, as its first, the one that is about to be free. Who asked twice must
    /// not wait twice.
    pub(crate) fn line_up(&self, ticket: Rc<Ticket>, left: Option<&Ticket>) {
        let mut line = self.line.borrow_mut();
        let Some(left) = left.filter(|left| left.has_turn()) else {
            line.push_back(ticket);
            return;
        };
        match line.iter_mut().find(|waiting| waiting.id == left.id) {
            Some(waiting) => *waiting = ticket,
            None => line.push_front(ticket),
        }
    }

    /// Takes a ticket out of the line.
    pub(crate) fn leave_line(&self, ticket: &Ticket) {
        self.line
            .borrow_mut()
            .retain(|waiting| waiting.id != ticket.id);
    }

    /// Places in use.
    pub(crate) fn taken(&self) -> u32 {
        self.taken.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let places = &self.0;
        places.taken.set(places.taken.get() - 1);
        places.free.set(places.free.get() + 1);
        let Some(first) = places.line.borrow_mut().pop_front() else {
            return;
        };
        if let Some(place) = places.take() {
            first.give_place(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use r_tftpd_broker::wire;

    use super::super::idle::IdleSocket;
    use super::super::tests::harness::file;
    use super::super::ticket::Phase;
    use super::*;

    fn ticket(id: u64, phase: Phase) -> Rc<Ticket> {
        let address = SocketAddr::from(([192, 0, 2, 1], 1000)).into();
        let asked = wire::Request {
            id,
            peer: address,
            local: address,
            mtu: 0,
            socket: wire::SocketUse::Once,
            replaces: None,
            datagram: vec![],
        };
        let ticket = Ticket::new(
            &asked,
            None,
            IdleSocket::New(file(b"").into()),
            Instant::now(),
        );
        ticket.set_phase(phase);
        Rc::new(ticket)
    }

    fn line(places: &Places) -> Vec<u64> {
        places
            .line
            .borrow()
            .iter()
            .map(|ticket| ticket.id)
            .collect()
    }

    #[test]
    fn who_asks_again_keeps_its_turn() {
        let places = Places::new(0);
        for id in 1..=3 {
            places.line_up(ticket(id, Phase::Waiting), None);
        }
        let left = ticket(2, Phase::Waiting);
        places.line_up(ticket(4, Phase::Waiting), Some(&left));
        assert_eq!(line(&places), [1, 4, 3]);
        let left = ticket(9, Phase::Proven);
        places.line_up(ticket(5, Phase::Waiting), Some(&left));
        assert_eq!(line(&places), [5, 1, 4, 3]);
        let left = ticket(8, Phase::Unproven);
        places.line_up(ticket(6, Phase::Waiting), Some(&left));
        assert_eq!(line(&places), [5, 1, 4, 3, 6]);
    }

    #[test]
    fn a_place_that_is_given_back_goes_to_the_first_in_line() {
        let places = Places::new(1);
        let place = places.take();
        assert!(place.is_some() && places.take().is_none());
        let first = ticket(1, Phase::Waiting);
        places.line_up(Rc::clone(&first), None);
        drop(place);
        let place = first.take_place();
        assert!(place.is_some());
        assert_eq!((line(&places).len(), places.taken()), (0, 1));
        drop(place);
        assert!(places.take().is_some());
    }
}
