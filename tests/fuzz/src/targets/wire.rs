//! Messages between processes, both ways, and the start messages: whatever is read is what was written.

use std::fmt::Debug;

use r_tftpd_broker::fetch::{FromFetcher, ToFetcher};
use r_tftpd_broker::settings::{BrokerStart, FetcherStart, MAX_START, WorkerStart};
use r_tftpd_broker::wire::{
    Decode, Encode, Error, MAX_MESSAGE, ToBroker, ToWorker, decode, encode, messages,
};

use crate::input::Input;

/// The bytes as a datagram of each type.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte() % 7;
    let datagram = input.rest();
    match kind {
        0 => check::<ToBroker, MAX_MESSAGE>(datagram),
        1 => check::<ToWorker, MAX_MESSAGE>(datagram),
        2 => check::<ToFetcher, MAX_MESSAGE>(datagram),
        3 => check::<FromFetcher, MAX_MESSAGE>(datagram),
        4 => check::<BrokerStart, MAX_START>(datagram),
        5 => check::<WorkerStart, MAX_START>(datagram),
        _ => check::<FetcherStart, MAX_START>(datagram),
    }
}

fn check<M: Decode<()> + Encode + PartialEq + Debug, const LIMIT: usize>(datagram: &[u8]) {
    // A number has more than one form, of which we write the shortest.
    let mut buffer = vec![0; LIMIT];
    let mut rewritten = Vec::new();
    let mut all = Vec::new();
    let mut failed = None;
    for message in messages::<M, LIMIT>(datagram) {
        assert_eq!(failed, None, "something follows an error");
        match message {
            Ok(message) => {
                let bytes = encode(&message, &mut buffer).expect("no longer than it came");
                assert_eq!(
                    decode::<M, LIMIT>(bytes).as_ref(),
                    Ok(&message),
                    "read another way"
                );
                rewritten.extend_from_slice(bytes);
                all.push(message);
            }
            Err(error) => failed = Some(error),
        }
    }
    assert!(rewritten.len() <= datagram.len(), "longer than it came");
    match (all.len(), failed) {
        (_, Some(Error::TooLong)) => assert!(datagram.len() > LIMIT && all.is_empty()),
        (_, Some(error)) => assert_eq!(error, Error::Malformed),
        (0, None) => panic!("no message and no error"),
        (1, None) => assert_eq!(decode::<M, LIMIT>(datagram).as_ref(), Ok(&all[0])),
        (_, None) => assert_eq!(decode::<M, LIMIT>(datagram), Err(Error::Trailing)),
    }
    if all.len() == 1 {
        // Neither a part of a message is one, nor a message with something behind it.
        for length in [rewritten.len() - 1, rewritten.len() / 2] {
            assert_eq!(
                decode::<M, LIMIT>(&rewritten[..length]),
                Err(Error::Malformed),
                "half a message"
            );
        }
        rewritten.push(0);
        assert!(
            decode::<M, LIMIT>(&rewritten).is_err(),
            "bytes behind a message"
        );
    }
}
