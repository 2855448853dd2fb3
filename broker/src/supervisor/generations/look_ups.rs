//! Questions to all generations, and the two actions that need no thought.

use super::generation::{Generation, Phase};
use super::{Action, Generations, Note};
use crate::control::Order;
use crate::supervisor::process::Role;

impl Generations {
    pub(super) fn find(&mut self, number: u64) -> Option<&mut Generation> {
        self.live
            .iter_mut()
            .find(|generation| generation.number == number)
    }

    pub(super) fn phases(&self) -> Vec<(u64, Phase)> {
        self.live
            .iter()
            .map(|generation| (generation.number, generation.phase))
            .collect()
    }

    pub(super) fn serving(&self) -> Option<u64> {
        let serving = |generation: &&Generation| matches!(generation.phase, Phase::Serving(_));
        self.live
            .iter()
            .find(serving)
            .map(|generation| generation.number)
    }

    pub(super) fn retiring(&self) -> bool {
        self.live
            .iter()
            .any(|generation| matches!(generation.phase, Phase::Retiring(_)))
    }

    /// Whether a generation is going to serve soon.
    pub(super) fn coming(&self) -> bool {
        let coming = |phase| matches!(phase, Phase::Starting(_) | Phase::Ready);
        self.live.iter().any(|generation| coming(generation.phase))
    }

    pub(super) fn stopping(&self) -> bool {
        self.finish.is_some()
    }

    pub(super) fn tell(&mut self, number: u64, role: Role, order: Order) {
        self.actions.push_back(Action::Tell(number, role, order));
    }

    pub(super) fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }
}
