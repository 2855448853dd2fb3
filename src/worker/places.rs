//! The places for proven transfers (`--max-connections`) and the line in front of them.
//!
//! Only a client that has answered gets in line, so a flood of requests from forged addresses
//! takes neither places nor turns.

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

    /// Puts a ticket at the end of the line; its turn comes by [`Ticket::give_place`].
    pub(crate) fn line_up(&self, ticket: Rc<Ticket>) {
        self.line.borrow_mut().push_back(ticket);
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
