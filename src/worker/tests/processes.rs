//! What a worker owes its supervisor and expects of its broker.

use r_tftpd_broker::control::Order;
use r_tftpd_broker::wire::{Hello, ToBroker, ToWorker};

use super::harness::{Client, Worker, datagram, file, pattern};
use super::{RRQ, done};

/// A worker with one proven and one unproven transfer; the clients, and the ids.
fn busy() -> (Worker, [Client; 2], [u64; 2]) {
    let mut worker = Worker::start();
    let (proven, unproven) = (Client::new(), Client::new());
    let request = datagram(RRQ, &["f", "octet", "blksize", "512"]);
    let first = worker.read(&proven, &request, &pattern(700));
    let (_, from) = proven.receive();
    proven.ack(0, from);
    assert_eq!(worker.told(), ToBroker::Proven { id: first });
    let second = worker.read(&unproven, &request, &pattern(700));
    unproven.receive();
    (worker, [proven, unproven], [first, second])
}

#[test]
fn retired_it_finishes_everything_and_ends() {
    let (worker, [proven, unproven], _) = busy();
    worker.order(Order::Retire);
    assert_eq!(worker.counts().unproven, 1);
    proven.take(1, 512, 1);
    let tid = {
        // The OACK comes again after a timeout.
        let (_, from) = unproven.receive();
        unproven.ack(0, from);
        from
    };
    assert_ne!(tid.port(), 0);
    unproven.take(1, 512, 1);
    assert_eq!(worker.ends(), 0);
}

#[test]
fn drained_it_ends_the_unproven_at_once_and_finishes_the_proven() {
    let (worker, [proven, unproven], [first, second]) = busy();
    worker.order(Order::Drain);
    assert!(unproven.receive().0.starts_with(&[0, 5, 0, 0]));
    assert_eq!(worker.told(), done(second, false));
    proven.take(1, 512, 1);
    assert_eq!(worker.told(), done(first, true));
    assert_eq!(worker.ends(), 0);
}

#[test]
fn idle_it_ends_as_soon_as_it_is_retired_or_drained_or_stopped() {
    for order in [Order::Retire, Order::Drain, Order::Stop] {
        let worker = Worker::start();
        worker.order(order);
        assert_eq!(worker.ends(), 0);
    }
}

#[test]
fn stopped_it_ends_whatever_it_does() {
    let (worker, _clients, _) = busy();
    worker.order(Order::Stop);
    assert_eq!(worker.ends(), 0);
}

#[test]
fn without_its_broker_it_fails() {
    let mut worker = Worker::start();
    drop(worker.broker.take());
    assert_eq!(worker.ends(), 1);
}

#[test]
fn a_broker_that_breaks_the_protocol_is_left() {
    let file = || file(b"x").into();
    let cases: [(ToWorker, Vec<_>); 7] = [
        (ToWorker::Hello(Hello::OURS), vec![]),
        (ToWorker::Missing { id: 9 }, vec![]),
        (
            ToWorker::File {
                id: 9,
                size: 1,
                in_memory: false,
            },
            vec![file()],
        ),
        (
            ToWorker::File {
                id: 9,
                size: 1,
                in_memory: false,
            },
            vec![],
        ),
        (ToWorker::Scratch { id: 9 }, vec![file()]),
        (ToWorker::Missing { id: 9 }, vec![file()]),
        (ToWorker::Scratch { id: 9 }, vec![file(), file()]),
    ];
    for (message, descriptors) in cases {
        let worker = Worker::start();
        worker.tell(&message, &descriptors.iter().collect::<Vec<_>>());
        assert_eq!(worker.ends(), 1, "{message:?}");
    }
}

#[test]
fn bytes_that_are_no_message_are_fatal() {
    let worker = Worker::start();
    worker.broker.as_ref().unwrap().send(&[99; 5000]).unwrap();
    assert_eq!(worker.ends(), 1);
    let worker = Worker::start();
    worker.broker.as_ref().unwrap().send(&[99; 5]).unwrap();
    assert_eq!(worker.ends(), 1);
}
