//! What clients get of a file that comes from an origin, with the test as broker and origin.

use std::fs::File;
use std::io::Write;

use r_tftpd_broker::control::Order;
use r_tftpd_broker::fetch::{Failure, Head, Validators};
use r_tftpd_broker::wire::{LinkInfo, ToBroker, ToWorker};

use super::harness::{Client, Worker, datagram, file, pattern, settings};
use super::{RRQ, done, error};

/// An origin's answer on its way to the worker.
struct Job {
    job: u64,
    file: File,
}

impl Job {
    fn head(&self, worker: &Worker, status: u16, headers: &[(&str, &str)], length: Option<u64>) {
        let text = |(name, value): &(&str, &str)| (name.to_string(), value.as_bytes().to_vec());
        let headers = headers.iter().map(text).collect();
        let job = self.job;
        let head = Head {
            job,
            status,
            headers,
            length,
        };
        worker.tell(&ToWorker::Head(head), &[]);
    }

    fn grow(&mut self, worker: &Worker, content: &[u8]) {
        self.file.write_all(content).unwrap();
        let (job, len) = (self.job, self.len());
        worker.tell(&ToWorker::Extent { job, len }, &[]);
    }

    fn end(&self, worker: &Worker) {
        let (job, len) = (self.job, self.len());
        worker.tell(&ToWorker::End { job, len }, &[]);
    }

    fn fail(&self, worker: &Worker, failure: Failure) {
        let failed = ToWorker::Failed {
            job: self.job,
            failure,
            detail: "as the test says".into(),
        };
        worker.tell(&failed, &[]);
    }

    fn len(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }
}

fn link(key: u64, cache: bool) -> LinkInfo {
    LinkInfo {
        key: [key, 0],
        display: "http://origin/f".into(),
        cache,
        identity: false,
    }
}

/// A request that the broker answers with a link.
fn ask(worker: &mut Worker, client: &Client, words: &[&str], link: &LinkInfo) -> u64 {
    let id = worker.request(client, &datagram(RRQ, words));
    // The end of the client's last transfer may be told first.
    while worker.told()
        != (ToBroker::Open {
            id,
            path: words[0].as_bytes().to_vec(),
        })
    {}
    let link = link.clone();
    worker.tell(&ToWorker::Link { id, link }, &[]);
    id
}

fn fetch(id: u64, netascii: bool) -> ToBroker {
    let validators = Validators::default();
    ToBroker::Fetch {
        id,
        validators,
        netascii,
    }
}

/// Waits for the end of a request: until then a repetition is taken for one.
fn await_end(worker: &Worker, id: u64) {
    while !matches!(worker.told(), ToBroker::Done { id: ended, .. } if ended == id) {}
}

fn grant(worker: &Worker, id: u64) -> Job {
    let (job, file) = (id + 1000, file(b""));
    let granted = file.try_clone().unwrap().into();
    let in_memory = false;
    let message = ToWorker::Fetching { id, job, in_memory };
    worker.tell(&message, &[&granted]);
    Job { job, file }
}

/// A request that is fetched.
fn lead(worker: &mut Worker, client: &Client, words: &[&str], link: &LinkInfo) -> (u64, Job) {
    let id = ask(worker, client, words, link);
    assert_eq!(worker.told(), fetch(id, false));
    (id, grant(worker, id))
}

const PLAIN: [&str; 2] = ["f", "octet"];
const FRESH: [(&str, &str); 1] = [("cache-control", "max-age=60")];

#[test]
fn one_fetch_serves_all_who_ask_while_it_grows() {
    let mut worker = Worker::start();
    let (first, second) = (Client::new(), Client::new());
    let content = pattern(1300);
    let (id, mut job) = lead(&mut worker, &first, &PLAIN, &link(1, true));
    job.head(&worker, 200, &FRESH, None);
    job.grow(&worker, &content[..600]);
    let (data, from) = first.receive();
    assert_eq!(data[4..], content[..512]);
    first.ack(1, from);
    assert_eq!(worker.told(), ToBroker::Proven { id });
    ask(&mut worker, &second, &PLAIN, &link(1, true));
    let (data, from) = second.receive();
    assert_eq!(data[4..], content[..512]);
    second.ack(1, from);
    job.grow(&worker, &content[600..]);
    job.end(&worker);
    assert_eq!(first.take(2, 512, 1), content[512..]);
    assert_eq!(second.take(2, 512, 1), content[512..]);
}

#[test]
fn a_fresh_entry_is_served_without_asking_and_a_cleared_one_is_not() {
    let mut worker = Worker::start();
    let client = Client::new();
    let content = pattern(700);
    let (id, mut job) = lead(&mut worker, &client, &PLAIN, &link(1, true));
    job.head(&worker, 200, &FRESH, Some(700));
    job.grow(&worker, &content);
    job.end(&worker);
    assert_eq!(client.take(1, 512, 1), content);
    await_end(&worker, id);
    let words = ["f", "octet", "tsize", "0"];
    let id = ask(&mut worker, &client, &words, &link(1, true));
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["tsize", "700"]));
    client.ack(0, from);
    assert_eq!(client.take(1, 512, 1), content);
    assert_eq!(worker.told(), ToBroker::Proven { id });
    assert_eq!(worker.told(), done(id, true));
    worker.order(Order::User(1));
    worker.order(Order::User(2));
    worker.counts();
    lead(&mut worker, &client, &PLAIN, &link(1, true));
}

#[test]
fn the_size_is_told_from_the_headers_before_the_body_has_come() {
    let mut worker = Worker::start();
    let client = Client::new();
    let words = ["f", "octet", "tsize", "0", "blksize", "1024"];
    let (_, mut job) = lead(&mut worker, &client, &words, &link(1, true));
    job.head(&worker, 200, &[], Some(1500));
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["blksize", "1024", "tsize", "1500"]));
    client.ack(0, from);
    job.grow(&worker, &pattern(1200));
    let (data, _) = client.receive();
    assert_eq!(data[4..], pattern(1024));
    client.ack(1, from);
    job.grow(&worker, &pattern(1500)[1200..]);
    job.end(&worker);
    assert_eq!(client.take(2, 1024, 1), pattern(1500)[1024..]);
}

#[test]
fn a_size_that_only_the_end_tells_is_waited_for() {
    let mut worker = Worker::start();
    let client = Client::new();
    let words = ["f", "octet", "tsize", "0"];
    let (_, mut job) = lead(&mut worker, &client, &words, &link(1, true));
    job.head(&worker, 200, &[], None);
    job.grow(&worker, &pattern(2000));
    let again = worker.request(&client, &datagram(RRQ, &words));
    let done = done(again, false);
    assert_eq!(worker.told(), done);
    job.end(&worker);
    // The first packet that the client gets at all.
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["tsize", "2000"]));
    client.ack(0, from);
    assert_eq!(client.take(1, 512, 1), pattern(2000));
}

#[test]
fn a_client_that_repeats_its_request_gets_an_oack_while_the_origin_is_silent() {
    let mut worker = Worker::start();
    let client = Client::new();
    let words = ["f", "octet", "blksize", "1024"];
    let (id, mut job) = lead(&mut worker, &client, &words, &link(1, true));
    let again = worker.request(&client, &datagram(RRQ, &words));
    let done = done(again, false);
    assert_eq!(worker.told(), done);
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["blksize", "1024"]));
    client.ack(0, from);
    assert_eq!(worker.told(), ToBroker::Proven { id });
    // Its patience anew.
    client.ack(0, from);
    job.head(&worker, 200, &[], None);
    job.grow(&worker, &pattern(1030));
    job.end(&worker);
    assert_eq!(client.take(1, 1024, 1), pattern(1030));
}

#[test]
fn a_client_gets_an_oack_without_repeating_its_request_and_an_error_after_it() {
    let mut worker = Worker::start();
    let client = Client::new();
    let words = ["f", "octet", "blksize", "1024"];
    let (_, job) = lead(&mut worker, &client, &words, &link(1, true));
    assert_eq!(client.receive().0, datagram(6, &["blksize", "1024"]));
    job.head(&worker, 404, &[], None);
    while !error(1)(&client.receive().0) {}
}

#[test]
fn refusals_of_the_origin_carry_their_codes() {
    let mut worker = Worker::start();
    let client = Client::new();
    for (status, code) in [(404, 1), (410, 1), (401, 2), (403, 2), (400, 0), (503, 0)] {
        let (id, job) = lead(&mut worker, &client, &PLAIN, &link(status, true));
        job.head(&worker, u16::try_from(status).unwrap(), &[], None);
        assert!(error(code)(&client.receive().0), "{status}");
        let done = done(id, false);
        let cancel = ToBroker::Cancel { job: job.job };
        let told = [worker.told(), worker.told()];
        assert!(told.contains(&done) && told.contains(&cancel), "{told:?}");
    }
    // No second question about what does not exist.
    let id = ask(&mut worker, &client, &PLAIN, &link(404, true));
    assert!(error(1)(&client.receive().0));
    assert_eq!(worker.told(), done(id, false));
}

#[test]
fn a_fetch_that_fails_ends_with_an_error_before_and_in_the_body() {
    let mut worker = Worker::start();
    let client = Client::new();
    let (id, job) = lead(&mut worker, &client, &PLAIN, &link(1, true));
    job.fail(&worker, Failure::Refused);
    assert_eq!(client.receive().0, b"\0\x05\0\0File could not be fetched\0");
    await_end(&worker, id);
    let id = ask(&mut worker, &client, &PLAIN, &link(2, true));
    assert_eq!(worker.told(), fetch(id, false));
    let failure = Failure::Internal;
    worker.tell(&ToWorker::NotFetched { id, failure }, &[]);
    assert!(error(0)(&client.receive().0));
    await_end(&worker, id);
    let (_, mut job) = lead(&mut worker, &client, &PLAIN, &link(3, true));
    job.head(&worker, 200, &[], Some(1024));
    job.grow(&worker, &pattern(1024));
    let (_, from) = client.receive();
    client.ack(1, from);
    client.receive();
    job.fail(&worker, Failure::BrokenOff);
    assert!(error(0)(&client.receive().0));
}

#[test]
fn what_nobody_wants_any_more_is_cancelled_unless_it_is_for_the_cache() {
    let mut worker = Worker::start();
    let client = Client::new();
    for cache in [true, false] {
        let (id, mut job) = lead(&mut worker, &client, &PLAIN, &link(1, cache));
        job.head(&worker, 200, &FRESH, Some(2000));
        job.grow(&worker, &pattern(600));
        let (_, from) = client.receive();
        client.send(b"\0\x05\0\0enough\0", from);
        assert_eq!(worker.told(), done(id, true));
        if cache {
            job.grow(&worker, &pattern(1400));
            job.end(&worker);
        } else {
            assert_eq!(worker.told(), ToBroker::Cancel { job: job.job });
        }
    }
    ask(&mut worker, &client, &PLAIN, &link(1, true));
    assert_eq!(client.take(1, 512, 1).len(), 2000);
}

#[test]
fn an_id_lives_until_the_broker_has_answered_for_those_who_have_joined() {
    let mut worker = Worker::start();
    let (first, second) = (Client::new(), Client::new());
    let old = ask(&mut worker, &first, &PLAIN, &link(1, true));
    assert_eq!(worker.told(), fetch(old, false));
    ask(&mut worker, &second, &PLAIN, &link(1, true));
    let third = Client::new();
    let other = datagram(RRQ, &["other", "octet"]);
    let id = worker.request_for(&third, &other, Some(old));
    let path = b"other".to_vec();
    assert_eq!(worker.told(), ToBroker::Open { id, path });
    worker.tell(&ToWorker::Missing { id }, &[]);
    assert!(error(1)(&third.receive().0));
    // The old request has ended before this one: its task was woken first.
    assert_eq!(worker.told(), done(id, false));
    let mut job = grant(&worker, old);
    let done = done(old, false);
    assert_eq!(worker.told(), done);
    job.head(&worker, 200, &[], None);
    job.grow(&worker, b"content");
    job.end(&worker);
    assert_eq!(second.take(1, 512, 1), b"content");
}

#[test]
fn who_has_joined_an_answer_that_is_not_for_all_fetches_alone() {
    let mut worker = Worker::start();
    let (first, second) = (Client::new(), Client::new());
    let (_, mut job) = lead(&mut worker, &first, &PLAIN, &link(1, true));
    let id = ask(&mut worker, &second, &PLAIN, &link(1, true));
    job.head(&worker, 200, &[("cache-control", "private")], None);
    assert_eq!(worker.told(), fetch(id, false));
    job.grow(&worker, b"first");
    job.end(&worker);
    assert_eq!(first.take(1, 512, 1), b"first");
    let mut job = grant(&worker, id);
    job.head(&worker, 200, &[("cache-control", "private")], None);
    job.grow(&worker, b"second");
    job.end(&worker);
    assert_eq!(second.take(1, 512, 1), b"second");
}

#[test]
fn a_stale_entry_is_confirmed_or_stands_in() {
    let mut worker = Worker::start();
    let client = Client::new();
    let (mut last, mut job) = lead(&mut worker, &client, &PLAIN, &link(1, true));
    job.head(&worker, 200, &[("etag", "\"x\"")], None);
    job.grow(&worker, b"content");
    job.end(&worker);
    assert_eq!(client.take(1, 512, 1), b"content");
    for confirmed in [true, false] {
        await_end(&worker, last);
        let id = ask(&mut worker, &client, &PLAIN, &link(1, true));
        let validators = Validators {
            etag: Some(b"\"x\"".to_vec()),
            last_modified: None,
        };
        let fetch = ToBroker::Fetch {
            id,
            validators,
            netascii: false,
        };
        assert_eq!(worker.told(), fetch);
        let job = grant(&worker, id);
        if confirmed {
            job.head(&worker, 304, &[("etag", "\"x\"")], None);
        } else {
            job.fail(&worker, Failure::Timeout);
        }
        assert_eq!(client.take(1, 512, 1), b"content");
        last = id;
    }
}

#[test]
fn netascii_is_translated_once_the_body_is_whole() {
    let mut worker = Worker::start();
    let client = Client::new();
    let id = ask(&mut worker, &client, &["f", "netascii"], &link(1, true));
    assert_eq!(worker.told(), fetch(id, true));
    let mut job = grant(&worker, id);
    job.head(&worker, 200, &[], Some(3));
    job.grow(&worker, b"a\n");
    job.grow(&worker, b"b");
    job.end(&worker);
    assert_eq!(worker.told(), ToBroker::Scratch { id, size: 4 });
    worker.tell(&ToWorker::Scratch { id }, &[&file(b"").into()]);
    assert_eq!(client.take(1, 512, 1), b"a\r\nb");
}

#[test]
fn a_size_probe_of_what_is_being_fetched_ends_it_and_the_body_is_kept() {
    let mut worker = Worker::start();
    let client = Client::new();
    let words = ["f", "octet", "tsize", "0"];
    let (id, mut job) = lead(&mut worker, &client, &words, &link(1, true));
    job.head(&worker, 200, &FRESH, Some(600));
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["tsize", "600"]));
    client.send(b"\0\x05\0\x08User aborted the transfer\0", from);
    assert_eq!(worker.told(), done(id, true));
    ask(&mut worker, &client, &PLAIN, &link(1, true));
    job.grow(&worker, &pattern(600));
    job.end(&worker);
    assert_eq!(client.take(1, 512, 1), pattern(600));
}

#[test]
fn an_origin_may_answer_by_client_only_where_it_is_told_of_clients() {
    for about in [true, false] {
        let mut settings = settings();
        settings.cache.about = about;
        let mut worker = Worker::start_with(settings);
        let client = Client::new();
        let (id, mut job) = lead(&mut worker, &client, &PLAIN, &link(1, true));
        let headers = [("cache-control", "max-age=60"), ("vary", "X-TFTP-File")];
        job.head(&worker, 200, &headers, Some(1));
        job.grow(&worker, b"x");
        job.end(&worker);
        assert_eq!(client.take(1, 512, 1), b"x");
        await_end(&worker, id);
        let other = ["alias", "octet"];
        let id = ask(&mut worker, &client, &other, &link(1, true));
        if about {
            assert_eq!(worker.told(), fetch(id, false));
        } else {
            assert_eq!(client.take(1, 512, 1), b"x");
        }
    }
}

#[test]
fn drained_it_ends_those_who_wait_for_an_origin() {
    let mut worker = Worker::start();
    let client = Client::new();
    lead(&mut worker, &client, &PLAIN, &link(1, true));
    worker.order(Order::Drain);
    assert!(error(0)(&client.receive().0));
    assert_eq!(worker.ends(), 0);
}

#[test]
fn a_grant_that_was_not_asked_is_fatal() {
    let worker = Worker::start();
    grant(&worker, 9);
    assert_eq!(worker.ends(), 1);
    let worker = Worker::start();
    let failure = Failure::Dns;
    worker.tell(&ToWorker::NotFetched { id: 9, failure }, &[]);
    assert_eq!(worker.ends(), 1);
}
