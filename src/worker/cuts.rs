//! Remembers how much of a window each client really has room for.
//!
//! U-Boot asks for a windowsize of 64, keeps 32 blocks of each window and waits five seconds for
//! the rest. Once a transfer has found that out, the next one of the same address grants no more.

use std::collections::HashMap;
use std::net::IpAddr;

/// Addresses remembered. A room full of equal machines fits; beyond that the one that was not
/// asked for longest is forgotten.
const MAX_CLIENTS: usize = 1024;

/// Windowsizes by client address.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    clients: HashMap<IpAddr, Kept>,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    windowsize: u16,
    /// The clock when it was used last.
    used: u64,
}

impl Cuts {
    /// The client kept only `windowsize` blocks of a window.
    pub(crate) fn note(&mut self, client: IpAddr, windowsize: u16) {
        self.clock += 1;
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&client) {
            let oldest = self.clients.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(oldest) = oldest.map(|(client, _)| *client) {
                self.clients.remove(&oldest);
            }
        }
        self.clients.insert(
            client,
            Kept {
                windowsize: windowsize.max(1),
                used: self.clock,
            },
        );
    }

    /// The most blocks to grant to a client that may be granted `most`.
    pub(crate) fn clamp(&mut self, client: IpAddr, most: u16) -> u16 {
        self.clock += 1;
        match self.clients.get_mut(&client) {
            Some(kept) => {
                kept.used = self.clock;
                most.min(kept.windowsize)
            }
            None => most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn u_boot_is_granted_what_it_kept_and_others_are_not_affected() {
        let mut cuts = Cuts::default();
        cuts.note(client(1), 32);
        assert_eq!(cuts.clamp(client(1), 64), 32);
        assert_eq!(cuts.clamp(client(1), 16), 16);
        assert_eq!(cuts.clamp(client(2), 64), 64);
    }

    #[test]
    fn the_client_not_asked_for_longest_is_forgotten() {
        let mut cuts = Cuts::default();
        for number in 0..1024 {
            cuts.note(client(number), 8);
        }
        assert_eq!(cuts.clamp(client(0), 64), 8);
        cuts.note(client(5000), 8);
        assert_eq!(cuts.clamp(client(0), 64), 8);
        assert_eq!(cuts.clamp(client(1), 64), 64);
        assert_eq!(cuts.clients.len(), MAX_CLIENTS);
    }
}
