//! The control channels between the supervisor and each process it starts.
//!
//! After the start message (see [`crate::settings`]) every message, in both directions, is
//! [`SIZE`] bytes long: a kind and seven numbers. The supervisor checks the length before it looks
//! at anything, so a captured process has next to nothing to attack it with.

/// Length of a control message in bytes.
pub const SIZE: usize = 64;

/// The bytes of a control message.
pub type Bytes = [u8; SIZE];

/// What the supervisor tells a process, after the start message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Broker: begin to read the listeners.
    Go,
    /// Broker: stop reading the listeners, confirm with [`Report::Retired`], go on serving the
    /// worker. Worker: nothing new comes; end when the last transfer has ended.
    Retire,
    /// Worker: end what is unproven or waiting at once, end when the last transfer has ended.
    Drain,
    /// End now.
    Stop,
    /// Answer with [`Report::Counts`].
    Ping,
    /// The user sent SIGUSR1 (1) or SIGUSR2 (2).
    User(u8),
    /// Broker: there is a fetcher, the first or a new one. Comes with one descriptor, the channel
    /// to it, non-blocking. The jobs of the last one have failed.
    Fetcher,
}

/// What a process tells the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Locked down and waiting for [`Order::Go`].
    Ready(Facts),
    /// Broker: the listeners are no longer read.
    Retired,
    /// Answers [`Order::Ping`].
    Counts(Counts),
    /// Broker: the fetcher broke the protocol or hung up, and is not listened to any more.
    Distrust,
}

/// What is in force in a process after its lock-down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Effective user id.
    pub uid: u32,
    /// Effective Landlock ABI, 0 = no Landlock.
    pub landlock_abi: u32,
    /// Number of system calls that seccomp allows, 0 = no seccomp.
    pub system_calls: u32,
    /// Memory can not be made executable (`PR_SET_MDWE`).
    pub mdwe: bool,
    /// `no_new_privs` is set.
    pub no_new_privs: bool,
    /// All capability sets are empty, but for what the bounding set keeps.
    pub no_capabilities: bool,
    /// Broker: paths are resolved by openat2; otherwise by the component walk.
    pub openat2: bool,
}

/// Figures of a process since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transfers whose peer has answered.
    pub transfers: u64,
    /// Transfers whose peer has not answered yet.
    pub unproven: u64,
    /// Requests that wait for a free place.
    pub waiting: u64,
    /// Requests taken since the start.
    pub requests: u64,
    /// Datagrams dropped unanswered since the start.
    pub dropped: u64,
}

/// A control message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed control message")
    }
}

impl std::error::Error for Malformed {}

impl Order {
    /// The order as bytes.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        match self {
            Self::Go => pack(1, [0; 7]),
            Self::Retire => pack(2, [0; 7]),
            Self::Drain => pack(3, [0; 7]),
            Self::Stop => pack(4, [0; 7]),
            Self::Ping => pack(5, [0; 7]),
            Self::User(number) => pack(6, [u64::from(number), 0, 0, 0, 0, 0, 0]),
            Self::Fetcher => pack(7, [0; 7]),
        }
    }

    /// Reads an order.
    ///
    /// # Errors
    /// Wrong length, unknown kind, or a number that means nothing.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        match unpack(bytes)? {
            (1, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Go),
            (2, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Retire),
            (3, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Drain),
            (4, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Stop),
            (5, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Ping),
            (6, [1, 0, 0, 0, 0, 0, 0]) => Ok(Self::User(1)),
            (6, [2, 0, 0, 0, 0, 0, 0]) => Ok(Self::User(2)),
            (7, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Fetcher),
            _ => Err(Malformed),
        }
    }
}

impl Report {
    /// The report as bytes.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        match self {
            Self::Ready(facts) => pack(
                1,
                [
                    u64::from(facts.uid),
                    u64::from(facts.landlock_abi),
                    u64::from(facts.system_calls),
                    u64::from(facts.mdwe),
                    u64::from(facts.no_new_privs),
                    u64::from(facts.no_capabilities),
                    u64::from(facts.openat2),
                ],
            ),
            Self::Retired => pack(2, [0; 7]),
            Self::Counts(Counts {
                transfers,
                unproven,
                waiting,
                requests,
                dropped,
            }) => pack(3, [transfers, unproven, waiting, requests, dropped, 0, 0]),
            Self::Distrust => pack(4, [0; 7]),
        }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// Wrong length, unknown kind, or a number that means nothing.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        match unpack(bytes)? {
            (
                1,
                [
                    uid,
                    landlock_abi,
                    system_calls,
                    mdwe,
                    no_new_privs,
                    no_capabilities,
                    openat2,
                ],
            ) => Ok(Self::Ready(Facts {
                uid: number(uid)?,
                landlock_abi: number(landlock_abi)?,
                system_calls: number(system_calls)?,
                mdwe: flag(mdwe)?,
                no_new_privs: flag(no_new_privs)?,
                no_capabilities: flag(no_capabilities)?,
                openat2: flag(openat2)?,
            })),
            (2, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Retired),
            (3, [transfers, unproven, waiting, requests, dropped, 0, 0]) => {
                Ok(Self::Counts(Counts {
                    transfers,
                    unproven,
                    waiting,
                    requests,
                    dropped,
                }))
            }
            (4, [0, 0, 0, 0, 0, 0, 0]) => Ok(Self::Distrust),
            _ => Err(Malformed),
        }
    }
}

fn number(value: u64) -> Result<u32, Malformed> {
    value.try_into().map_err(|_| Malformed)
}

fn flag(value: u64) -> Result<bool, Malformed> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

fn pack(kind: u64, numbers: [u64; 7]) -> Bytes {
    let mut bytes = [0; SIZE];
    let values = std::iter::once(kind).chain(numbers);
    for (place, value) in bytes.chunks_exact_mut(8).zip(values) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Result<(u64, [u64; 7]), Malformed> {
    let bytes: &Bytes = bytes.try_into().map_err(|_| Malformed)?;
    let mut values = [0; 8];
    for (value, place) in values.iter_mut().zip(bytes.chunks_exact(8)) {
        *value = u64::from_le_bytes(place.try_into().map_err(|_| Malformed)?);
    }
    let [kind, numbers @ ..] = values;
    Ok((kind, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_and_report_survives_the_way() {
        use Order::{Drain, Fetcher, Go, Ping, Retire, Stop, User};
        for order in [Go, Retire, Drain, Stop, Ping, User(1), User(2), Fetcher] {
            assert_eq!(Order::from_bytes(&order.to_bytes()), Ok(order));
        }
        let facts = Facts {
            uid: 65534,
            landlock_abi: 7,
            mdwe: true,
            ..Facts::default()
        };
        let counts = Counts {
            transfers: 1,
            unproven: 2,
            waiting: 3,
            requests: 4,
            dropped: 5,
        };
        for report in [
            Report::Ready(facts),
            Report::Retired,
            Report::Counts(counts),
            Report::Distrust,
        ] {
            assert_eq!(Report::from_bytes(&report.to_bytes()), Ok(report));
        }
    }

    #[test]
    fn what_is_no_control_message_is_refused() {
        assert_eq!(Order::from_bytes(&[]), Err(Malformed));
        assert_eq!(Order::from_bytes(&[0; SIZE]), Err(Malformed));
        assert_eq!(
            Order::from_bytes(&Order::User(3).to_bytes()),
            Err(Malformed)
        );
        assert_eq!(Order::from_bytes(&pack(1, [1; 7])), Err(Malformed));
        assert_eq!(Report::from_bytes(&[0; SIZE]), Err(Malformed));
        assert_eq!(Report::from_bytes(&[0; SIZE - 1]), Err(Malformed));
        assert_eq!(Report::from_bytes(&[0; SIZE + 1]), Err(Malformed));
        assert_eq!(Report::from_bytes(&pack(1, [2; 7])), Err(Malformed));
        assert_eq!(Report::from_bytes(&pack(1, [u64::MAX; 7])), Err(Malformed));
        assert_eq!(Report::from_bytes(&pack(3, [1; 7])), Err(Malformed));
    }
}
