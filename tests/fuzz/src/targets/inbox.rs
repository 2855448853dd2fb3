//! Datagrams over a real channel, with as many descriptors as the sender likes: the receiver takes exactly what belongs
//! together, and no descriptor is left open.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use r_tftpd_broker::channel::{Channel, MAX_DESCRIPTORS, ReceiveError};
use r_tftpd_broker::inbox::{Inbox, Shared};
use r_tftpd_broker::wire::{
    Denial, Endpoint, Hello, MAX_MESSAGE, Request, SocketUse, ToBroker, ToWorker, decode, encode,
};

use crate::input::Input;

/// Any address does.
const NOBODY: Endpoint = Endpoint {
    ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: 69,
    scope: 0,
};

/// Sends datagrams made of messages and of bytes, and receives them.
pub fn run(data: &[u8]) {
    let (here, there) = Channel::pair().expect("socketpair");
    let before = lowest_free();
    let mut input = Input::new(data);
    let mut inbox = Inbox::<ToWorker>::default();
    let mut other = Inbox::<ToBroker>::default();
    for _ in 0..8 {
        let datagram = datagram(&mut input);
        let count = input.pick(&[0, 1, 2, 3, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1, 0, 1]);
        if datagram.is_empty() || datagram.len() > MAX_MESSAGE + 1 {
            break;
        }
        let descriptors = vec![source(); count];
        here.send_with(&datagram, &descriptors).expect("sendmsg");
        let mut buffer = [0; MAX_MESSAGE];
        if input.flag() {
            from_less_trusted(&there, &mut buffer, &datagram, count, &mut other);
        } else {
            from_more_trusted(&there, &mut buffer, &datagram, count, &mut inbox);
        }
    }
    drop((inbox, other));
    assert_eq!(lowest_free(), before, "a descriptor is left open");
}

fn from_more_trusted(
    channel: &Channel,
    buffer: &mut [u8],
    sent: &[u8],
    count: usize,
    inbox: &mut Inbox<ToWorker>,
) {
    match channel.receive_with(buffer) {
        Ok(received) => {
            assert_eq!((received.bytes, received.descriptors.len()), (sent, count));
            let numbers: Vec<_> = received
                .descriptors
                .iter()
                .map(AsRawFd::as_raw_fd)
                .collect();
            let is_taken = inbox.fill(received.bytes, received.descriptors).is_ok();
            assert_eq!(
                is_taken,
                belongs_together::<ToWorker>(sent, count),
                "{sent:?} with {count}"
            );
            if !is_taken {
                // Fatal to the sender: nothing of it is done.
                *inbox = Inbox::default();
                return;
            }
            let mut numbers = numbers.into_iter();
            while let Some((message, descriptor)) = inbox.pop() {
                let expected = message.has_descriptor().then(|| numbers.next()).flatten();
                assert_eq!(
                    descriptor.as_ref().map(OwnedFd::as_raw_fd),
                    expected,
                    "{message:?}"
                );
            }
            assert_eq!(numbers.next(), None);
        }
        Err(ReceiveError::Truncated) => {
            assert!(sent.len() > MAX_MESSAGE || count > MAX_DESCRIPTORS)
        }
        Err(error) => panic!("{error}"),
    }
}

fn from_less_trusted(
    channel: &Channel,
    buffer: &mut [u8],
    sent: &[u8],
    count: usize,
    inbox: &mut Inbox<ToBroker>,
) {
    match channel.receive(buffer) {
        Ok(bytes) => {
            assert_eq!((bytes, count), (sent, 0));
            let is_taken = inbox.fill(bytes, Vec::new()).is_ok();
            assert_eq!(is_taken, belongs_together::<ToBroker>(sent, 0));
            if !is_taken {
                *inbox = Inbox::default();
            }
            while inbox.pop().is_some() {}
        }
        Err(ReceiveError::Truncated) => assert!(sent.len() > MAX_MESSAGE || count > 0),
        Err(error) => panic!("{error}"),
    }
}

/// Whether bytes are messages that have so many descriptors: found by trying where each may end.
fn belongs_together<M: Shared>(mut bytes: &[u8], count: usize) -> bool {
    let mut wanted = 0;
    while !bytes.is_empty() {
        let ends = 1..=bytes.len();
        let first = ends.map(|end| (end, decode::<M, MAX_MESSAGE>(&bytes[..end])));
        let Some((end, message)) = first
            .into_iter()
            .find_map(|(end, message)| Some((end, message.ok()?)))
        else {
            return false;
        };
        wanted += usize::from(message.has_descriptor());
        bytes = &bytes[end..];
    }
    wanted == count
}

fn datagram(input: &mut Input<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    let mut buffer = [0; MAX_MESSAGE];
    for _ in 0..input.byte() % 4 {
        let id = input.any_size();
        let bytes = match input.byte() % 10 {
            0 => encode(
                &ToWorker::File {
                    id,
                    size: input.any_size(),
                    in_memory: input.flag(),
                },
                &mut buffer,
            ),
            1 => encode(&ToWorker::Missing { id }, &mut buffer),
            2 => encode(&ToWorker::Scratch { id }, &mut buffer),
            3 => encode(
                &ToWorker::Denied {
                    id,
                    reason: Denial::Loop,
                },
                &mut buffer,
            ),
            4 => encode(&ToWorker::Hello(Hello::OURS), &mut buffer),
            5 => encode(
                &ToBroker::Open {
                    id,
                    path: input.bytes(32).to_vec(),
                },
                &mut buffer,
            ),
            6 => encode(
                &ToBroker::Done {
                    id,
                    proven: input.flag(),
                    kept: false,
                },
                &mut buffer,
            ),
            7 => Ok(input.bytes(16)),
            8 => encode(
                &ToWorker::Request(Request {
                    id,
                    peer: NOBODY,
                    socket: match input.byte() % 3 {
                        0 => SocketUse::Once,
                        1 => SocketUse::First(7),
                        _ => SocketUse::Again(7),
                    },
                    local: NOBODY,
                    mtu: 0,
                    replaces: None,
                    datagram: input.bytes(32).to_vec(),
                }),
                &mut buffer,
            ),
            _ => Ok(&[0; MAX_MESSAGE][..input.below(MAX_MESSAGE)]),
        };
        datagram.extend_from_slice(bytes.expect("a short message"));
    }
    datagram
}

fn source() -> BorrowedFd<'static> {
    static SOURCE: OnceLock<File> = OnceLock::new();
    SOURCE
        .get_or_init(|| File::open("/dev/null").expect("/dev/null"))
        .as_fd()
}

/// The number that the next descriptor will get.
fn lowest_free() -> i32 {
    source().try_clone_to_owned().expect("dup").as_raw_fd()
}
