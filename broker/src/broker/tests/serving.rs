//! What the broker does for an honest worker and an honest supervisor.

use std::os::unix::fs::{FileExt, symlink};

use super::*;
use crate::wire::Denial;

#[test]
fn a_request_is_handed_on_unread_and_its_file_is_granted() {
    let rig = Rig::new();
    let client = client("127.0.0.1:0");
    client
        .send_to(b"\0\x01what\xff\0ever", rig.address())
        .unwrap();
    let (request, socket) = rig.request();
    assert_eq!(request.datagram, b"\0\x01what\xff\0ever");
    assert_eq!(SocketAddr::from(request.peer), client.local_addr().unwrap());
    rig.say(&ToBroker::Open {
        id: request.id,
        path: b"/file".to_vec(),
    });
    let (message, mut files) = rig.hear();
    let ToWorker::File { id, size, .. } = message else {
        panic!("{message:?}")
    };
    assert_eq!((id, size, files.len()), (request.id, 4, 1));
    assert_eq!(content(files.remove(0)), "good");
    socket.send(b"DATA").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from),
        (&b"DATA"[..], request.local.into())
    );
}

#[test]
fn what_is_not_granted_is_told_apart() {
    let rig = Rig::new();
    symlink("/etc/passwd", rig.root.join("out")).unwrap();
    symlink("http://host/", rig.root.join("url")).unwrap();
    for (path, expected) in [
        (&b"nothing"[..], None),
        (b"../file", Some(Denial::OutsideRoot)),
        (b"out", Some(Denial::OutsideRoot)),
        (b"url/kernel", Some(Denial::Proxy)),
        (b"", Some(Denial::NotRegular)),
        (b"fi\0le", Some(Denial::BadPath)),
    ] {
        let (_client, id) = rig.asked();
        let expected = match expected {
            None => ToWorker::Missing { id },
            Some(reason) => ToWorker::Denied { id, reason },
        };
        assert_eq!(rig.open(id, path), expected, "{}", path.escape_ascii());
    }
}

#[test]
fn a_memory_file_of_the_size_asked_is_granted() {
    let rig = Rig::new();
    let (_client, id) = rig.asked();
    rig.open(id, b"file");
    rig.say(&ToBroker::Scratch { id, size: 5 });
    let (message, mut files) = rig.hear();
    assert_eq!((message, files.len()), (ToWorker::Scratch { id }, 1));
    let file = fs::File::from(files.remove(0));
    file.write_all_at(b"12345", 0).unwrap();
    assert!(file.write_all_at(b"6", 5).is_err());
}

#[test]
fn memory_files_beyond_the_limit_are_denied_and_nothing_else() {
    let rig = Rig::new();
    for expected in [None, None, None, None, Some(Denial::Resources)] {
        let (_client, id) = rig.asked();
        rig.open(id, b"file");
        rig.say(&ToBroker::Scratch {
            id,
            size: crate::wire::MAX_SCRATCH,
        });
        let expected = match expected {
            None => ToWorker::Scratch { id },
            Some(reason) => ToWorker::Denied { id, reason },
        };
        assert_eq!(rig.hear().0, expected);
    }
}

#[test]
fn the_answer_for_a_request_that_has_ended_is_dropped() {
    let (control, _supervisor) = Channel::pair().unwrap();
    let (to_worker, worker) = Channel::pair().unwrap();
    worker.set_nonblocking().unwrap();
    let root = fs::File::open(std::env::temp_dir()).unwrap();
    let resolver = Arc::new(Resolver::new(root.into(), None));
    let helpers = Helpers::start(&resolver).unwrap();
    let places = Places {
        control,
        worker: to_worker,
        listeners: Vec::new(),
        resolver,
        helpers,
        proxy: None,
    };
    let mut broker = Broker::new(settings(), places);
    let file = fs::File::open("/dev/null").unwrap().into();
    let late = super::super::resolve::Opened {
        file,
        size: 0,
        in_memory: false,
    };
    broker
        .grant(1, b"file", Ok(late), std::time::Instant::now())
        .unwrap();
    assert!(matches!(
        worker.receive_with(&mut [0; 16]),
        Err(ReceiveError::WouldBlock)
    ));
}

#[test]
fn listeners_are_read_from_go_to_retire_and_what_is_queued_is_left_to_others() {
    let mut rig = Rig::with(listener("127.0.0.1:0"), settings());
    rig.greet();
    let before = client("127.0.0.1:0");
    before.send_to(RRQ, rig.address()).unwrap();
    assert_eq!(rig.counts().requests, 0);
    rig.order(Order::Go);
    let (request, _socket) = rig.request();
    rig.order(Order::Retire);
    assert_eq!(rig.report(), Report::Retired);
    before
        .send_to(b"\0\x01later\0octet\0", rig.address())
        .unwrap();
    // The worker is still served.
    let id = request.id;
    assert_eq!(rig.open(id, b"nothing"), ToWorker::Missing { id });
    rig.say(&done(id, false));
    assert_eq!(rig.counts().requests, 1);
    let mut buffer = [0; 64];
    let (length, _) = rig.listener.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"\0\x01later\0octet\0");
    // A worker without transfers ends, and then the broker.
    let (gone, _) = Channel::pair().unwrap();
    drop(std::mem::replace(&mut rig.worker, gone));
    assert!(rig.end().is_ok());
}

#[test]
fn counts_follow_the_requests() {
    let rig = Rig::new();
    let (_one, proven) = rig.asked();
    let (_two, ended) = rig.asked();
    let (_three, _unproven) = rig.asked();
    rig.say(&ToBroker::Proven { id: proven });
    rig.say(&done(ended, false));
    let (four, id) = rig.asked();
    four.send_to(b"\0\x04\0\x01", rig.address()).unwrap();
    four.send_to(RRQ, rig.address()).unwrap();
    rig.request();
    // An answer is behind all that was said before it.
    rig.open(id, b"nothing");
    let expected = Counts {
        transfers: 1,
        unproven: 3,
        waiting: 0,
        requests: 5,
        dropped: 1,
    };
    assert_eq!(rig.counts(), expected);
}

#[test]
fn stop_ends_the_broker_at_once() {
    let mut rig = Rig::new();
    let (_client, _id) = rig.asked();
    rig.order(Order::Stop);
    assert!(rig.end().is_ok());
}

#[test]
fn drain_is_retire_and_user_signals_are_not_for_the_broker() {
    let rig = Rig::new();
    rig.order(Order::User(1));
    rig.order(Order::User(2));
    rig.order(Order::Drain);
    assert_eq!(rig.report(), Report::Retired);
}

#[test]
fn the_end_of_the_supervisor_is_the_end_of_the_broker() {
    let mut rig = Rig::new();
    let (gone, other) = Channel::pair().unwrap();
    drop(std::mem::replace(&mut rig.supervisor, gone));
    assert!(matches!(
        rig.end(),
        Err(Error::Control(ReceiveError::Closed))
    ));
    drop(other);
}

#[test]
fn a_wrong_order_ends_the_broker() {
    let mut rig = Rig::new();
    rig.supervisor.send(&[7; SIZE]).unwrap();
    assert!(matches!(rig.end(), Err(Error::Order)));
}

#[test]
fn a_limit_on_an_address_holds_until_a_request_ends() {
    let limits = BrokerStart {
        max_per_client: 2,
        ..settings()
    };
    let rig = Rig::with(listener("127.0.0.1:0"), limits);
    rig.order(Order::Go);
    rig.greet();
    let (client, first) = rig.asked();
    let (_two, _second) = rig.asked();
    client.send_to(RRQ, rig.address()).unwrap();
    while rig.counts().dropped == 0 {}
    rig.say(&done(first, false));
    assert_eq!(rig.open(2, b"nothing"), ToWorker::Missing { id: 2 });
    rig.asked();
}

#[test]
fn an_address_that_floods_gets_its_next_request_for_its_oldest() {
    let limits = BrokerStart {
        max_per_client: 2,
        ..settings()
    };
    let rig = Rig::with(listener("127.0.0.1:0"), limits);
    rig.order(Order::Go);
    rig.greet();
    let (_silent, oldest) = rig.asked();
    let (_proven, other) = rig.asked();
    rig.say(&ToBroker::Proven { id: other });
    let client = client("127.0.0.1:0");
    let mut dropped = 0;
    let request = loop {
        // Too early at first: then it is dropped.
        client.send_to(RRQ, rig.address()).unwrap();
        let counts = loop {
            let counts = rig.counts();
            if counts.requests == 3 || counts.dropped > dropped {
                break counts;
            }
        };
        if counts.requests == 3 {
            break rig.request().0;
        }
        dropped = counts.dropped;
    };
    assert_eq!(request.replaces, Some(oldest));
    rig.say(&done(oldest, false));
    assert_eq!(
        rig.open(request.id, b"nothing"),
        ToWorker::Missing { id: 3 }
    );
}
