//! Which log records are written, and how many like them are not.
//!
//! Who can send datagrams can cause records, from as many addresses as it likes. The first records
//! of a client and kind are written, further ones within a [`SPAN`] are counted, and at its end a
//! few lines tell how many of which client. What is kept in mind is bounded, and forgotten at the
//! end of each span. Time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::memory;

/// How long records of a kind count as similar. Long enough for a summary to say much, short
/// enough for somebody who waits for it.
pub const SPAN: Duration = Duration::from_secs(60);

/// Clients and kinds that are counted each by itself; further ones of a kind are counted together.
const CLIENTS: usize = 4096;

/// Clients that are named in the lines at the end of a span, those with the most records.
const NAMED: usize = 20;

/// Counts records by client and kind.
#[derive(Debug)]
pub struct Similar<Kind> {
    most: u32,
    /// When the first record of this span came; none = nothing is kept in mind.
    began: Option<Instant>,
    clients: HashMap<(Option<IpAddr>, Kind), Count>,
    kinds: HashMap<Kind, Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    written: u32,
    /// Not written. Of a kind: those of clients that are not counted by themselves.
    held: u64,
}

/// Records that were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<Kind> {
    /// What all of them are.
    pub kind: Kind,
    /// Whose they are; none: of several clients, or of nobody.
    pub client: Option<IpAddr>,
    /// How many clients; those beyond some thousands are not counted.
    pub clients: usize,
    /// How many records, 1 or more.
    pub similar: u64,
}

impl<Kind: Copy + Eq + Ord + Hash> Similar<Kind> {
    /// At most `most` records of a kind are written in a span, whoever causes them.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self {
            most,
            began: None,
            clients: HashMap::new(),
            kinds: HashMap::new(),
        }
    }

    /// Whether a record is to be written, of which a client may cause `most` in a span. Otherwise
    /// it is counted.
    pub fn pass(&mut self, client: Option<IpAddr>, kind: Kind, most: u32, now: Instant) -> bool {
        self.began.get_or_insert(now);
        let has_room = self.clients.len() < CLIENTS;
        let of_kind = self.kinds.entry(kind).or_default();
        let of_client = if has_room {
            Some(self.clients.entry((client, kind)).or_default())
        } else {
            self.clients.get_mut(&(client, kind))
        };
        let passes = of_kind.written < self.most
            && of_client.as_ref().is_none_or(|count| count.written < most);
        match of_client {
            Some(count) if passes => count.written += 1,
            Some(count) => count.held += 1,
            None if passes => (),
            None => of_kind.held += 1,
        }
        of_kind.written += u32::from(passes);
        passes
    }

    /// When [`Self::take`] is due; none while nothing is kept in mind.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.began.map(|began| began + SPAN)
    }

    /// Ends the span: what was not written in it, a few lines however much it was, the clients with
    /// the most records first. Returns with it how long the span has been.
    pub fn take(&mut self, now: Instant) -> (Vec<Summary<Kind>>, Duration) {
        let began = self.began.take().unwrap_or(now);
        // Not by clear(): after a flood the memory is given back.
        let clients = std::mem::take(&mut self.clients);
        let were_many = clients.len() > memory::FEW;
        let kinds = std::mem::take(&mut self.kinds);
        let held = clients.into_iter().filter(|(_, count)| count.held > 0);
        let mut held: Vec<_> = held.collect();
        held.sort_unstable_by_key(|((client, kind), count)| {
            (std::cmp::Reverse(count.held), *kind, *client)
        });
        let named = held.iter().take(NAMED);
        let mut lines: Vec<_> = named
            .map(|((client, kind), count)| Summary {
                kind: *kind,
                client: *client,
                clients: usize::from(client.is_some()),
                similar: count.held,
            })
            .collect();
        let mut others: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
        for (kind, count) in kinds.into_iter().filter(|(_, count)| count.held > 0) {
            others.insert(kind, (0, count.held));
        }
        for ((_, kind), count) in held.into_iter().skip(NAMED) {
            let (clients, similar) = others.entry(kind).or_default();
            *clients += 1;
            *similar += count.held;
        }
        lines.extend(
            others
                .into_iter()
                .map(|(kind, (clients, similar))| Summary {
                    kind,
                    client: None,
                    clients,
                    similar,
                }),
        );
        if were_many {
            memory::give_back();
        }
        (lines, now.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(number.into()))
    }

    #[test]
    fn the_first_records_of_a_client_are_written_and_the_others_counted() {
        let (mut similar, now) = (Similar::new(1000), Instant::now());
        let written = (0..415).filter(|_| similar.pass(client(1), "missing", 3, now));
        assert_eq!(written.count(), 3);
        // Another client, and another kind.
        assert!(similar.pass(client(2), "missing", 3, now));
        assert!(similar.pass(client(1), "denied", 3, now));
        let summary = Summary {
            kind: "missing",
            client: client(1),
            clients: 1,
            similar: 412,
        };
        let later = now + Duration::from_secs(7);
        assert_eq!(similar.take(later), (vec![summary], Duration::from_secs(7)));
        assert!(similar.pass(client(1), "missing", 3, now));
    }

    #[test]
    fn a_span_begins_with_its_first_record_and_leaves_nothing_behind() {
        let (mut similar, now) = (Similar::new(10), Instant::now());
        assert_eq!(similar.due(), None);
        similar.pass(client(1), (), 1, now);
        similar.pass(client(1), (), 1, now + Duration::from_secs(1));
        assert_eq!(similar.due(), Some(now + SPAN));
        similar.take(now + SPAN);
        assert_eq!(similar.due(), None);
        assert_eq!((similar.clients.capacity(), similar.kinds.len()), (0, 0));
        assert_eq!(similar.take(now), (vec![], Duration::ZERO));
    }

    #[test]
    fn a_flood_from_any_number_of_sources_is_bounded_and_its_total_is_right() {
        let (mut similar, now) = (Similar::new(1000), Instant::now());
        let written = (0..100_000)
            .filter(|number| similar.pass(client(number % 10_000), "timeout", 100, now));
        assert_eq!(written.count(), 1000);
        assert!(similar.clients.len() <= CLIENTS);
        let (lines, _) = similar.take(now);
        assert_eq!(lines.len(), NAMED + 1);
        assert_eq!(lines.iter().map(|line| line.similar).sum::<u64>(), 99_000);
        let last = lines.last().unwrap();
        assert_eq!((last.client, last.clients), (None, CLIENTS - NAMED));
    }

    #[test]
    fn a_flood_of_one_kind_takes_no_line_from_another() {
        let (mut similar, now) = (Similar::new(100), Instant::now());
        for number in 0..10_000 {
            similar.pass(client(number), "timeout", 10, now);
        }
        assert!(similar.pass(client(77_777), "denied", 10, now));
        for number in 0..10_000 {
            similar.pass(client(number), "denied", 10, now);
        }
        let (lines, _) = similar.take(now);
        let of = |kind| lines.iter().filter(move |line| line.kind == kind);
        let sum = |kind| of(kind).map(|line| line.similar).sum::<u64>();
        assert_eq!((sum("timeout"), sum("denied")), (9900, 9901));
    }

    #[test]
    fn those_with_the_most_records_are_named() {
        let (mut similar, now) = (Similar::new(1000), Instant::now());
        for number in 1..=30 {
            for _ in 0..=number {
                similar.pass(client(number), "gone", 1, now);
            }
        }
        let (lines, _) = similar.take(now);
        let named: Vec<_> = lines.iter().map(|line| line.similar).collect();
        assert_eq!(named[..20], Vec::from_iter((11..=30).rev()));
        assert_eq!((lines[20].clients, lines[20].similar), (10, 55));
    }
}
