//! How much is sent to networks that do not answer: what a forged sender can be made to receive.
//!
//! Every request is charged what an unproven client can be sent at most. Who answers gets all of
//! it back; a request that was refused gets back all but the ERROR. So honest clients cost next to
//! nothing, however many they are, and the target of forged requests receives at most
//! [`PREFIX_BURST`] once and [`PREFIX_RATE`] from then on, and what follows.
//!
//! A prefix that is out of budget can also be one where an honest client sits among forged or
//! silent ones. Therefore each address of it that was not heard of for [`RESERVE_PAUSE`] still
//! has one request, for at most [`RESERVE`] addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Bytes charged for a request: the datagram an unproven client is sent (512 bytes of payload, 4
/// of TFTP, 8 of UDP, 40 of IPv6), first and in three resends.
pub(super) const CHARGE: u64 = 4 * (512 + 4 + 8 + 40);

/// Bytes charged for a request that was refused: one ERROR with its headers.
pub(super) const REFUSED: u64 = 128;

/// Bytes a prefix can be sent unanswered at once: 14 000 requests outstanding, so that a boot
/// storm of 10 000 machines behind one address translator passes with the missing files it asks.
pub(super) const PREFIX_BURST: u64 = 32 * 1024 * 1024;

/// Bytes a prefix can be sent unanswered in each millisecond: 2 Mbit/s, some 110 requests a second.
const PREFIX_RATE: u64 = 256;

/// Addresses of a prefix that are heard although its budget is used up.
const RESERVE: usize = 256;

/// How long such an address waits for its next request. Clients repeat theirs every 1 to 5 s.
const RESERVE_PAUSE: Duration = Duration::from_secs(1);

/// Prefixes that are kept in mind. One is forgotten when its budget is whole: milliseconds after
/// a single request. What comes when there is no place shares one budget.
const PREFIXES: usize = 65_536;

/// Between two searches for prefixes that can be forgotten, as each looks at all of them.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// The budgets of all prefixes.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    prefixes: HashMap<Prefix, Budget>,
    /// For the prefixes that find no place.
    shared: Option<Budget>,
    swept: Option<Instant>,
}

/// What one site is given: a /24 of IPv4, which is the smallest that is routed, and a /64 of
/// IPv6, of which a single machine can use every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Prefix {
    V4([u8; 3]),
    V6([u8; 8]),
}

#[derive(Debug)]
struct Budget {
    /// Bytes that may still be sent.
    left: u64,
    /// Up to when `left` was filled up.
    filled: Instant,
    reserve: HashMap<IpAddr, Instant>,
}

impl Budgets {
    /// Pays for a request: the bytes charged, none if it can not be taken.
    pub(super) fn charge(&mut self, peer: IpAddr, now: Instant) -> Option<u64> {
        let budget = self.budget(peer, now);
        match budget.left.checked_sub(CHARGE) {
            Some(left) => {
                budget.left = left;
                Some(CHARGE)
            }
            None => budget.use_reserve(peer, now).then_some(0),
        }
    }

    /// Gives back what was charged and not used.
    pub(super) fn refund(&mut self, peer: IpAddr, bytes: u64, now: Instant) {
        let budget = self.budget(peer, now);
        budget.left = budget.left.saturating_add(bytes).min(PREFIX_BURST);
    }

    fn budget(&mut self, peer: IpAddr, now: Instant) -> &mut Budget {
        let prefix = Prefix::of(peer);
        let is_new = !self.prefixes.contains_key(&prefix);
        if is_new && self.prefixes.len() >= PREFIXES {
            self.sweep(now);
        }
        let budget = if is_new && self.prefixes.len() >= PREFIXES {
            self.shared.get_or_insert_with(|| Budget::new(now))
        } else {
            self.prefixes
                .entry(prefix)
                .or_insert_with(|| Budget::new(now))
        };
        budget.fill(now);
        budget
    }

    /// Forgets the prefixes whose budget is whole.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| is_within(at, SWEEP_PAUSE, now)) {
            return;
        }
        self.swept = Some(now);
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        self.prefixes.retain(|_, budget| {
            budget.fill(now);
            budget.left < PREFIX_BURST
        });
    }

    /// Forgets the prefixes whose budget is whole, and keeps no room for more.
    pub(super) fn shrink(&mut self, now: Instant) {
        self.forget(now);
        self.prefixes.shrink_to_fit();
        for budget in self.prefixes.values_mut() {
            budget.reserve.shrink_to_fit();
        }
    }
}

impl Prefix {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: PREFIX_BURST,
            filled: now,
            reserve: HashMap::new(),
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        // Whole milliseconds only: the rest counts the next time.
        self.filled += Duration::from_millis(elapsed);
        let gained = elapsed.saturating_mul(PREFIX_RATE);
        self.left = self.left.saturating_add(gained).min(PREFIX_BURST);
        if self.left == PREFIX_BURST && !self.reserve.is_empty() {
            self.reserve = HashMap::new();
        }
    }

    fn use_reserve(&mut self, peer: IpAddr, now: Instant) -> bool {
        if self
            .reserve
            .get(&peer)
            .is_some_and(|at| is_within(*at, RESERVE_PAUSE, now))
        {
            return false;
        }
        if self.reserve.len() >= RESERVE && !self.reserve.contains_key(&peer) {
            self.reserve
                .retain(|_, at| is_within(*at, RESERVE_PAUSE, now));
            if self.reserve.len() >= RESERVE {
                return false;
            }
        }
        self.reserve.insert(peer, now);
        true
    }
}

fn is_within(at: Instant, pause: Duration, now: Instant) -> bool {
    now.saturating_duration_since(at) < pause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    /// Until an address has to use the reserve.
    fn use_up(budgets: &mut Budgets, now: Instant) {
        while budgets.charge(v4(1), now) == Some(CHARGE) {}
    }

    #[test]
    fn what_forged_senders_of_a_prefix_receive_is_bounded() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        let seconds = 3;
        let mut sent = 0;
        for millisecond in 0..seconds * 1000_u64 {
            let now = start + Duration::from_millis(millisecond);
            for host in 0..=255 {
                sent += if budgets.charge(v4(host), now).is_some() {
                    CHARGE
                } else {
                    0
                };
            }
        }
        let reserve = 256 * CHARGE * seconds;
        assert!(
            sent <= PREFIX_BURST + PREFIX_RATE * 1000 * seconds + reserve,
            "{sent}"
        );
    }

    #[test]
    fn forged_senders_of_one_ipv6_prefix_are_bounded_although_it_has_2_to_the_64_addresses() {
        let (mut budgets, now) = (Budgets::default(), Instant::now());
        let admitted = (0..100_000_u128)
            .filter(|host| {
                let address = IpAddr::from((0x2001_0db8_u128 << 96 | host).to_be_bytes());
                budgets.charge(address, now).is_some()
            })
            .count();
        assert_eq!(admitted as u64, PREFIX_BURST / CHARGE + 256);
    }

    #[test]
    fn clients_that_answer_cost_nothing() {
        let (mut budgets, now) = (Budgets::default(), Instant::now());
        for _ in 0..100_000 {
            assert_eq!(budgets.charge(v4(1), now), Some(CHARGE));
            budgets.refund(v4(1), CHARGE, now);
        }
        assert_eq!(budgets.budget(v4(1), now).left, PREFIX_BURST);
    }

    #[test]
    fn a_boot_storm_with_missing_files_passes() {
        let (mut budgets, now) = (Budgets::default(), Instant::now());
        for _ in 0..10_000 {
            assert_eq!(budgets.charge(v4(1), now), Some(CHARGE));
        }
        for _ in 0..5 * 10_000 {
            budgets.refund(v4(1), CHARGE - REFUSED, now);
            assert_eq!(budgets.charge(v4(1), now), Some(CHARGE));
        }
    }

    #[test]
    fn an_honest_address_is_heard_among_forged_ones_of_its_prefix() {
        let (mut budgets, now) = (Budgets::default(), Instant::now());
        use_up(&mut budgets, now);
        assert_eq!(budgets.charge(v4(2), now), Some(0));
        assert_eq!(budgets.charge(v4(2), now), None);
        assert!(budgets.charge(v4(2), now + RESERVE_PAUSE).is_some());
    }

    #[test]
    fn a_used_up_prefix_takes_nothing_from_others_and_fills_up_again() {
        let (mut budgets, now) = (Budgets::default(), Instant::now());
        use_up(&mut budgets, now);
        assert_eq!(
            budgets.charge(IpAddr::from([198, 51, 100, 1]), now),
            Some(CHARGE)
        );
        let later = now + Duration::from_millis(PREFIX_BURST / PREFIX_RATE);
        assert_eq!(budgets.budget(v4(1), later).left, PREFIX_BURST);
    }

    #[test]
    fn time_below_a_millisecond_is_not_lost() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        use_up(&mut budgets, start);
        let left = budgets.budget(v4(1), start).left;
        for step in 1..=100 {
            budgets.budget(v4(1), start + Duration::from_micros(step * 1900));
        }
        assert_eq!(budgets.budget(v4(1), start).left, left + 190 * PREFIX_RATE);
    }

    #[test]
    fn the_table_of_prefixes_is_bounded_and_idle_ones_make_place() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        let address = |index: u32| IpAddr::from((0x0a00_0000 + (index << 8)).to_be_bytes());
        for index in 0..u32::try_from(PREFIXES).unwrap() + 1000 {
            assert_eq!(budgets.charge(address(index), start), Some(CHARGE));
        }
        assert_eq!(budgets.prefixes.len(), PREFIXES);
        assert_eq!(
            budgets.shared.as_ref().unwrap().left,
            PREFIX_BURST - 1000 * CHARGE
        );
        budgets.charge(address(1 << 17), start + Duration::from_secs(1));
        assert_eq!(budgets.prefixes.len(), 1);
    }
}
