//! Links and fetches, between a worker and a fetcher played by the test. The fetcher is trusted as
//! little as the worker.

use std::os::unix::fs::{FileExt, symlink};
use std::time::Instant;

use super::super::cache_file::CacheFiles;
use super::super::requests::Violation;
use super::*;
use crate::fetch::{Failure, Fetch, FromFetcher, Head, MAX_VALIDATOR, ToFetcher, Validators};
use crate::settings::ProxyStart;
use crate::wire::{Denial, LinkInfo, decode};

/// The test's end of the channel between broker and fetcher.
struct Fetcher(Channel);

impl Fetcher {
    fn say(&self, message: &FromFetcher) {
        let mut buffer = [0; MAX_MESSAGE];
        self.0.send(encode(message, &mut buffer).unwrap()).unwrap();
    }

    fn hear(&self) -> (ToFetcher, Vec<OwnedFd>) {
        let mut buffer = [0; MAX_MESSAGE];
        let datagram = self.0.receive_with(&mut buffer).unwrap();
        let message = decode::<_, MAX_MESSAGE>(datagram.bytes).unwrap();
        (message, datagram.descriptors)
    }

    /// The next job, and its file.
    fn job(&self) -> (Fetch, fs::File) {
        match self.hear() {
            (ToFetcher::Fetch(fetch), mut files) if files.len() == 1 => {
                (fetch, files.remove(0).into())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn start() -> ProxyStart {
    ProxyStart {
        fallback: None,
        cache_directory: true,
        ports: vec![(80, 80)],
        about: true,
        max_fetches: 4,
        max_object: 1000,
    }
}

/// A broker with a proxy that serves, without a fetcher.
fn rig_with(start: ProxyStart) -> Rig {
    let directory = fs::File::open(std::env::temp_dir()).unwrap();
    let files = CacheFiles::new(Some(directory.into()));
    let proxy = Proxy::new(start, files).unwrap();
    let rig = Rig::with_proxy(listener("127.0.0.1:0"), settings(), Some(proxy));
    rig.order(Order::Go);
    rig.greet();
    for (name, target) in [
        ("images", "http+nocache://user:secret@host/dir/"),
        ("port", "http://host:22/"),
        ("ftp", "ftp://user:secret@host/"),
        ("local", "file:///etc/passwd"),
        ("modifier", "http+gzip://host/"),
        ("broken", "http://:/"),
    ] {
        symlink(target, rig.root.join(name)).unwrap();
    }
    rig
}

/// Gives the broker a fetcher.
fn give_fetcher(rig: &Rig) -> Fetcher {
    let (ours, brokers) = Channel::pair().unwrap();
    let deadline = TimeVal::seconds(DEADLINE_S);
    setsockopt(&ours, sockopt::ReceiveTimeout, &deadline).unwrap();
    brokers.set_nonblocking().unwrap();
    let order = Order::Fetcher.to_bytes();
    let descriptor = std::os::fd::AsFd::as_fd(&brokers);
    rig.supervisor.send_with(&order, &[descriptor]).unwrap();
    drop(brokers);
    let fetcher = Fetcher(ours);
    assert_eq!(fetcher.hear().0, ToFetcher::Hello(Hello::OURS));
    fetcher.say(&FromFetcher::Hello(Hello::OURS));
    fetcher
}

fn rig() -> (Rig, Fetcher) {
    let rig = rig_with(start());
    let fetcher = give_fetcher(&rig);
    (rig, fetcher)
}

/// Asks for a name that is a link.
fn link(rig: &Rig, name: &[u8]) -> (u64, LinkInfo) {
    let (_client, id) = rig.asked();
    match rig.open(id, name) {
        ToWorker::Link { id: of, link } if of == id => (id, link),
        message => panic!("{message:?}"),
    }
}

fn ask_fetch(rig: &Rig, id: u64) {
    rig.say(&ToBroker::Fetch {
        id,
        validators: Validators::default(),
        netascii: false,
    });
}

/// A job that the worker and the fetcher know, and its two files.
fn fetching(rig: &Rig, fetcher: &Fetcher) -> (u64, fs::File, fs::File) {
    let (id, _) = link(rig, b"images/a");
    ask_fetch(rig, id);
    let (message, mut files) = rig.hear();
    let ToWorker::Fetching { id: of, job, .. } = message else {
        panic!("{message:?}")
    };
    assert_eq!((of, files.len()), (id, 1));
    let (fetch, writable) = fetcher.job();
    assert_eq!(fetch.job, job);
    (job, writable, files.remove(0).into())
}

fn head(job: u64, status: u16) -> FromFetcher {
    FromFetcher::Head(Head {
        job,
        status,
        headers: Vec::new(),
        length: None,
    })
}

fn failed(job: u64, detail: &str) -> FromFetcher {
    FromFetcher::Failed {
        job,
        failure: Failure::Timeout,
        detail: detail.into(),
    }
}

/// What the worker hears when the fetcher is gone.
fn assert_lost(rig: &Rig, job: u64) {
    match rig.hear().0 {
        ToWorker::Failed {
            job: lost,
            failure: Failure::Internal,
            ..
        } => assert_eq!(lost, job),
        message => panic!("{message:?}"),
    }
}

#[test]
fn a_link_is_fetched_by_what_the_broker_kept() {
    let (rig, fetcher) = rig();
    let (id, info) = link(&rig, b"/images/x//y");
    assert_eq!(info.display, "http://host/dir/x//y");
    assert!(!info.cache && !info.identity);
    rig.say(&ToBroker::Fetch {
        id,
        validators: Validators {
            etag: Some(b"\"1\"".to_vec()),
            last_modified: None,
        },
        netascii: true,
    });
    let (fetch, _file) = fetcher.job();
    assert_eq!(fetch.url, "http://user:secret@host/dir/");
    assert_eq!(fetch.rest, b"x//y");
    assert_eq!(fetch.validators.etag.as_deref(), Some(&b"\"1\""[..]));
    let about = fetch.about.unwrap();
    assert_eq!(about.client.to_string(), "127.0.0.1");
    assert_eq!(
        (about.file.as_slice(), about.mode.as_str()),
        (&b"images/x//y"[..], "netascii")
    );
}

#[test]
fn what_is_in_no_directory_is_asked_of_the_fallback() {
    let rig = rig_with(ProxyStart {
        fallback: Some("http+nocompress://fallback/boot".into()),
        ..start()
    });
    let fetcher = give_fetcher(&rig);
    let (id, info) = link(&rig, b"//not/here");
    assert_eq!(info.display, "http://fallback/boot/not/here");
    assert!(info.cache && info.identity);
    ask_fetch(&rig, id);
    assert!(matches!(rig.hear().0, ToWorker::Fetching { job: 1, .. }));
    let (fetch, _file) = fetcher.job();
    assert_eq!(fetch.url, "http://fallback/boot");
    assert_eq!(
        (fetch.rest.as_slice(), fetch.identity),
        (&b"not/here"[..], true)
    );
    let (_client, id) = rig.asked();
    assert!(matches!(rig.open(id, b"file"), ToWorker::File { .. }));
    let (_client, id) = rig.asked();
    let reason = Denial::OutsideRoot;
    assert_eq!(
        rig.open(id, b"not/../here"),
        ToWorker::Denied { id, reason }
    );
}

#[test]
fn a_link_that_may_not_be_fetched_is_denied() {
    let (rig, _fetcher) = rig();
    for name in ["port/x", "ftp", "local", "modifier/x", "broken"] {
        let (_client, id) = rig.asked();
        let reason = Denial::Proxy;
        assert_eq!(
            rig.open(id, name.as_bytes()),
            ToWorker::Denied { id, reason },
            "{name}"
        );
    }
}

#[test]
fn a_job_is_relayed_from_head_to_end_and_its_file_shared() {
    let (rig, fetcher) = rig();
    let (job, writable, readable) = fetching(&rig, &fetcher);
    fetcher.say(&head(job, 200));
    assert!(matches!(rig.hear().0, ToWorker::Head(Head { job: of, .. }) if of == job));
    writable.write_all_at(b"body", 0).unwrap();
    fetcher.say(&FromFetcher::Extent { job, len: 2 });
    assert_eq!(rig.hear().0, ToWorker::Extent { job, len: 2 });
    fetcher.say(&FromFetcher::End { job, len: 4 });
    assert_eq!(rig.hear().0, ToWorker::End { job, len: 4 });
    let mut body = [0; 4];
    readable.read_exact_at(&mut body, 0).unwrap();
    assert_eq!(&body, b"body");
    assert!(readable.write_all_at(b"x", 0).is_err());
}

#[test]
fn a_job_goes_on_when_its_request_has_ended() {
    let (rig, fetcher) = rig();
    let (job, ..) = fetching(&rig, &fetcher);
    rig.say(&done(1, false));
    fetcher.say(&failed(job, "no answer"));
    let message = rig.hear().0;
    assert!(matches!(
        message,
        ToWorker::Failed {
            failure: Failure::Timeout,
            ..
        }
    ));
}

#[test]
fn a_cancelled_job_says_nothing_more() {
    let (rig, fetcher) = rig();
    let (first, ..) = fetching(&rig, &fetcher);
    rig.say(&ToBroker::Cancel { job: first });
    assert_eq!(fetcher.hear().0, ToFetcher::Cancel { job: first });
    // Was under way.
    fetcher.say(&head(first, 200));
    fetcher.say(&failed(first, ""));
    let (second, ..) = fetching(&rig, &fetcher);
    fetcher.say(&head(second, 404));
    assert!(matches!(rig.hear().0, ToWorker::Head(Head { job, .. }) if job == second));
    // It has ended meanwhile.
    rig.say(&ToBroker::Cancel { job: first });
    assert_eq!(rig.counts().requests, 2);
}

#[test]
fn jobs_are_bounded_and_the_end_of_one_makes_place() {
    let (rig, fetcher) = rig();
    let jobs: Vec<_> = (0..4).map(|_| fetching(&rig, &fetcher)).collect();
    let (id, _) = link(&rig, b"images/a");
    ask_fetch(&rig, id);
    let failure = Failure::Internal;
    assert_eq!(rig.hear().0, ToWorker::NotFetched { id, failure });
    fetcher.say(&failed(jobs[0].0, ""));
    rig.hear();
    fetching(&rig, &fetcher);
}

#[test]
fn without_a_fetcher_nothing_is_fetched_and_files_are_served() {
    let rig = rig_with(start());
    let (id, _) = link(&rig, b"images");
    ask_fetch(&rig, id);
    let failure = Failure::Internal;
    assert_eq!(rig.hear().0, ToWorker::NotFetched { id, failure });
    let (_client, id) = rig.asked();
    assert!(matches!(rig.open(id, b"file"), ToWorker::File { .. }));
    let fetcher = give_fetcher(&rig);
    fetching(&rig, &fetcher);
}

#[test]
fn the_jobs_of_a_fetcher_that_dies_fail_and_the_next_one_gets_new_ones() {
    let (rig, fetcher) = rig();
    let (job, ..) = fetching(&rig, &fetcher);
    drop(fetcher);
    assert_lost(&rig, job);
    let fetcher = give_fetcher(&rig);
    let (next, ..) = fetching(&rig, &fetcher);
    assert!(next > job);
}

#[test]
fn a_new_fetcher_ends_the_jobs_of_the_last_one() {
    let (rig, last) = rig();
    let (job, ..) = fetching(&rig, &last);
    let fetcher = give_fetcher(&rig);
    assert_lost(&rig, job);
    assert!(matches!(
        last.0.receive(&mut [0; 8]),
        Err(ReceiveError::Closed)
    ));
    fetching(&rig, &fetcher);
}

#[test]
fn a_fetcher_that_breaks_the_protocol_is_not_listened_to_any_more() {
    let long = "x".repeat(crate::fetch::MAX_DETAIL + 1);
    let extent = |len| FromFetcher::Extent { job: 1, len };
    let end = |len| FromFetcher::End { job: 1, len };
    for (said, relayed) in [
        (vec![FromFetcher::Hello(Hello::OURS)], 0),
        (vec![head(2, 200)], 0),
        (vec![head(0, 200)], 0),
        (vec![head(1, 200), head(1, 200)], 1),
        (vec![head(1, 199)], 0),
        (vec![head(1, 600)], 0),
        (vec![extent(1)], 0),
        (vec![end(0)], 0),
        (vec![head(1, 200), extent(5), extent(4)], 2),
        (vec![head(1, 200), extent(5), end(4)], 2),
        (vec![head(1, 200), extent(1001)], 1),
        (vec![head(1, 404), end(1)], 1),
        (vec![failed(1, &long)], 0),
        (vec![failed(1, "line\nbreak")], 0),
    ] {
        let (rig, fetcher) = rig();
        let (job, ..) = fetching(&rig, &fetcher);
        for message in &said {
            fetcher.say(message);
        }
        for _ in 0..relayed {
            rig.hear();
        }
        assert_lost(&rig, job);
        assert_eq!(rig.report(), Report::Distrust, "{said:?}");
        assert!(matches!(
            fetcher.0.receive(&mut [0; 8]),
            Err(ReceiveError::Closed)
        ));
        assert_eq!(rig.counts().requests, 1, "{said:?}");
    }
}

#[test]
fn bytes_or_descriptors_that_no_fetcher_sends_end_it() {
    let (rig, fetcher) = rig();
    fetcher.0.send(&[200, 1, 2, 3]).unwrap();
    assert_eq!(rig.report(), Report::Distrust);
    let fetcher = give_fetcher(&rig);
    let descriptor = std::os::fd::AsFd::as_fd(&rig.listener);
    fetcher.0.send_with(&[2, 1, 1], &[descriptor]).unwrap();
    assert_eq!(rig.report(), Report::Distrust);
    let (ours, brokers) = Channel::pair().unwrap();
    brokers.set_nonblocking().unwrap();
    let descriptor = std::os::fd::AsFd::as_fd(&brokers);
    rig.supervisor
        .send_with(&Order::Fetcher.to_bytes(), &[descriptor])
        .unwrap();
    // Another thing first than a greeting.
    let fetcher = Fetcher(ours);
    fetcher.say(&head(1, 200));
    assert_eq!(rig.report(), Report::Distrust);
    give_fetcher(&rig);
}

#[test]
fn a_fetcher_that_does_not_read_stops_nobody() {
    let rig = rig_with(ProxyStart {
        max_fetches: 5000,
        ..start()
    });
    let fetcher = give_fetcher(&rig);
    for _ in 0..600 {
        let (id, _) = link(&rig, b"images/a");
        ask_fetch(&rig, id);
        let ToWorker::Fetching { job, .. } = rig.hear().0 else {
            panic!("not fetched")
        };
        if job % 2 == 0 {
            rig.say(&ToBroker::Cancel { job });
        }
        rig.say(&done(id, false));
    }
    let (_client, id) = rig.asked();
    assert!(matches!(rig.open(id, b"file"), ToWorker::File { .. }));
    // All that was not cancelled arrives, in order.
    let (mut last, start) = (0, Instant::now());
    while last < 599 && start.elapsed().as_secs() < 20 {
        match fetcher.hear().0 {
            ToFetcher::Fetch(fetch) => {
                assert!(fetch.job > last);
                last = fetch.job;
            }
            ToFetcher::Cancel { job } => assert!(job % 2 == 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(last, 599);
}

/// What ends a worker that breaks the rules of fetches.
fn violation(mut rig: Rig) -> Violation {
    assert!(is_closed(&rig.worker));
    match rig.end() {
        Err(Error::Violation(violation)) => violation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_can_fetch_once_and_only_what_a_link_names() {
    let (rig1, _fetcher) = rig();
    let (_client, id) = rig1.asked();
    ask_fetch(&rig1, id);
    assert_eq!(violation(rig1), Violation::Fetch);

    let (rig2, _fetcher) = rig();
    let (_client, id) = rig2.asked();
    rig2.open(id, b"file");
    ask_fetch(&rig2, id);
    assert_eq!(violation(rig2), Violation::Fetch);

    let (rig3, _fetcher) = rig();
    let (id, _) = link(&rig3, b"images");
    ask_fetch(&rig3, id);
    ask_fetch(&rig3, id);
    assert_eq!(violation(rig3), Violation::Repeated);

    let (rig4, _fetcher) = rig();
    let (id, _) = link(&rig4, b"images");
    rig4.say(&done(id, false));
    ask_fetch(&rig4, id);
    assert_eq!(violation(rig4), Violation::UnknownId);

    let (rig5, _fetcher) = rig();
    rig5.say(&ToBroker::Cancel { job: 1 });
    assert_eq!(violation(rig5), Violation::UnknownJob);

    let (rig6, _fetcher) = rig();
    let (id, _) = link(&rig6, b"images");
    rig6.say(&ToBroker::Fetch {
        id,
        validators: Validators {
            etag: None,
            last_modified: Some(vec![b'x'; MAX_VALIDATOR + 1]),
        },
        netascii: false,
    });
    assert_eq!(violation(rig6), Violation::ValidatorTooLong);
}

#[test]
fn only_the_order_for_it_brings_a_fetcher() {
    let with = |order: Order, count: usize, rig: Rig| {
        let mut rig = rig;
        let descriptor = std::os::fd::AsFd::as_fd(&rig.listener);
        let descriptors = vec![descriptor; count];
        rig.supervisor
            .send_with(&order.to_bytes(), &descriptors)
            .unwrap();
        assert!(matches!(rig.end(), Err(Error::Order)), "{order:?} {count}");
    };
    with(Order::Fetcher, 0, rig_with(start()));
    with(Order::Fetcher, 2, rig_with(start()));
    with(Order::Ping, 1, rig_with(start()));
    with(Order::Fetcher, 1, Rig::new());
}
