//! What a captured worker may try, and that it ends the broker, with it the generation; and what
//! it can not do at all.

use super::*;
use crate::broker::requests::Violation;
use crate::wire::{self, MAX_PATH, MAX_SCRATCH};

/// Runs `attack` against a broker with one outstanding request, and returns why the broker ended.
fn attack(attack: impl FnOnce(&Rig, u64)) -> Error {
    let mut rig = Rig::new();
    let (_client, id) = rig.asked();
    attack(&rig, id);
    let error = rig.end().unwrap_err();
    assert!(is_closed(&rig.worker));
    error
}

macro_rules! assert_ends {
    ($attack:expr, $error:pat) => {
        let error = attack($attack);
        assert!(matches!(error, $error), "{error:?}");
    };
}

#[test]
fn an_id_that_is_not_outstanding_ends_the_broker() {
    use Error::Violation as Because;
    let unknown = |id: u64| id + 1;
    assert_ends!(
        |rig, id| rig.say(&ToBroker::Open {
            id: unknown(id),
            path: b"file".to_vec()
        }),
        Because(Violation::UnknownId)
    );
    assert_ends!(
        |rig, id| rig.say(&ToBroker::Scratch {
            id: unknown(id),
            size: 1
        }),
        Because(Violation::UnknownId)
    );
    assert_ends!(
        |rig, id| rig.say(&ToBroker::Proven { id: unknown(id) }),
        Because(Violation::UnknownId)
    );
    assert_ends!(
        |rig, id| rig.say(&done(unknown(id), true)),
        Because(Violation::UnknownId)
    );
}

#[test]
fn a_replayed_message_ends_the_broker() {
    use Error::Violation as Because;
    assert_ends!(
        |rig, id| {
            rig.open(id, b"file");
            rig.say(&ToBroker::Open {
                id,
                path: b"file".to_vec(),
            });
        },
        Because(Violation::Repeated)
    );
    assert_ends!(
        |rig, id| {
            rig.say(&ToBroker::Proven { id });
            rig.say(&ToBroker::Proven { id });
        },
        Because(Violation::Repeated)
    );
    assert_ends!(
        |rig, id| {
            rig.say(&done(id, false));
            rig.say(&done(id, false));
        },
        Because(Violation::UnknownId)
    );
    assert_ends!(
        |rig, id| {
            rig.open(id, b"file");
            rig.say(&ToBroker::Scratch { id, size: 1 });
            rig.say(&ToBroker::Scratch { id, size: 1 });
        },
        Because(Violation::Repeated)
    );
}

#[test]
fn too_much_ends_the_broker() {
    use Error::Violation as Because;
    assert_ends!(
        |rig, id| rig.say(&ToBroker::Open {
            id,
            path: vec![b'x'; MAX_PATH + 1]
        }),
        Because(Violation::PathTooLong)
    );
    assert_ends!(
        |rig, id| {
            rig.open(id, b"file");
            rig.say(&ToBroker::Scratch {
                id,
                size: MAX_SCRATCH + 1,
            });
        },
        Because(Violation::Scratch)
    );
    assert_ends!(
        |rig, id| rig.say(&ToBroker::Scratch { id, size: 1 }),
        Because(Violation::Scratch)
    );
}

#[test]
fn what_is_no_message_ends_the_broker() {
    assert_ends!(
        |rig, _| rig.worker.send(&[0xff; 300]).unwrap(),
        Error::Message(wire::Error::Malformed)
    );
    assert_ends!(
        |rig, id| {
            let id = u8::try_from(id).unwrap();
            // A message, and something behind it that is none.
            rig.worker.send(&[3, id, 0]).unwrap();
        },
        Error::Message(wire::Error::Malformed)
    );
    assert_ends!(
        |rig, _| rig.worker.send(&[0; MAX_MESSAGE + 1]).unwrap(),
        Error::Message(wire::Error::TooLong)
    );
    assert_ends!(
        |rig, _| rig.worker.send(&vec![0; 150_000]).unwrap(),
        Error::Worker(ReceiveError::Truncated)
    );
    assert_ends!(
        |rig, _| rig.worker.send(&[]).unwrap(),
        Error::Worker(ReceiveError::Closed)
    );
}

#[test]
fn a_descriptor_ends_the_broker_and_is_not_installed() {
    let (kept, sent) = Channel::pair().unwrap();
    assert_ends!(
        |rig, id| {
            let mut buffer = [0; 16];
            let message = encode(&ToBroker::Proven { id }, &mut buffer).unwrap();
            let descriptors = [std::os::fd::AsFd::as_fd(&sent); 10];
            rig.worker.send_with(message, &descriptors).unwrap();
        },
        Error::Worker(ReceiveError::Truncated)
    );
    drop(sent);
    assert!(is_closed(&kept));
}

#[test]
fn a_wrong_greeting_ends_the_broker() {
    assert_ends!(|rig, _| rig.greet(), Error::Greeting);
    let mut rig = Rig::with(listener("127.0.0.1:0"), settings());
    rig.say(&done(1, false));
    assert!(matches!(rig.end(), Err(Error::Greeting)));
    let mut rig = Rig::with(listener("127.0.0.1:0"), settings());
    rig.worker.send(&[0, 1, 1]).unwrap();
    assert!(matches!(rig.end(), Err(Error::OtherBuild)));
}

#[test]
fn the_end_of_the_worker_is_the_end_of_the_broker() {
    let mut rig = Rig::new();
    let (gone, _) = Channel::pair().unwrap();
    drop(std::mem::replace(&mut rig.worker, gone));
    assert!(matches!(
        rig.end(),
        Err(Error::Worker(ReceiveError::Closed))
    ));
}

#[test]
fn a_worker_that_does_not_read_stops_nothing_but_its_own_requests_and_loses_none() {
    let rig = Rig::new();
    let client = client("127.0.0.1:0");
    // Long ones, of which few go together: the channel is full before the listener would be.
    let all = 280_u64;
    let request = [b"\0\x01", &[b'x'; 1000][..], b"\0octet\0"].concat();
    for _ in 0..all {
        client.send_to(&request, rig.address()).unwrap();
    }
    // Far fewer are taken in than were sent, and the supervisor is heard all the time.
    let mut taken = rig.counts().requests;
    loop {
        let now = rig.counts().requests;
        if now > 50 && now == taken {
            break;
        }
        taken = now;
    }
    assert!(taken < all, "{taken}");
    for id in 1..=all {
        assert_eq!(rig.request().0.id, id);
    }
    assert_eq!(rig.counts().requests, all);
}

#[test]
fn a_worker_that_asks_and_does_not_read_is_not_heard_any_more() {
    let rig = Rig::new();
    let client = client("127.0.0.1:0");
    let all = 300_u64;
    for id in 1..=all {
        client.send_to(RRQ, rig.address()).unwrap();
        assert_eq!(rig.request().0.id, id);
    }
    rig.worker.set_nonblocking().unwrap();
    let mut buffer = [0; MAX_MESSAGE];
    // Answers fill one direction of the channel, then questions the other.
    let mut asked = 0;
    for id in 1..=all {
        let message = encode(
            &ToBroker::Open {
                id,
                path: b"file".to_vec(),
            },
            &mut buffer,
        )
        .unwrap();
        if rig.worker.send(message).is_err() {
            break;
        }
        asked += 1;
    }
    assert!(rig.counts().requests == all);
    // None of it is lost.
    let mut answered = 0;
    let mut place = [nix::poll::PollFd::new(
        std::os::fd::AsFd::as_fd(&rig.worker),
        nix::poll::PollFlags::POLLIN,
    )];
    while answered < asked {
        if rig.inbox.borrow().is_empty() {
            assert_eq!(
                nix::poll::poll(&mut place, 20_000_u16),
                Ok(1),
                "{answered} of {asked}"
            );
        }
        assert!(matches!(rig.hear().0, ToWorker::File { .. }));
        answered += 1;
    }
}
