//! Origins that break off, stall, lie or come back different; disks that fill.

use std::fs::File;
use std::io::Read;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use r_tftpd_broker::control::Order;
use r_tftpd_broker::fetch::{Failure, Fetch, FromFetcher, ToFetcher};
use r_tftpd_broker::wire::Hello;

use crate::harness::{Fetcher, content, fetch, granted, setup};
use r_tftpd_test_support::origin::{Asked, Raw, answer, hang_up, pattern, put};

const LENGTH: usize = 300_000;

/// Sends `body` from where the request wants it, and breaks off after `most` bytes.
fn serve(asked: &Asked, stream: &mut std::net::TcpStream, headers: &str, body: &[u8], most: usize) {
    let first = asked.header("range").map(|range| {
        let first = range
            .strip_prefix("bytes=")
            .and_then(|range| range.strip_suffix('-'));
        first.unwrap().parse::<usize>().unwrap()
    });
    let total = body.len();
    let (status, first) = match first {
        Some(first) => (
            format!(
                "206 Partial Content\r\nContent-Range: bytes {first}-{}/{total}",
                total - 1
            ),
            first,
        ),
        None => ("200 OK".into(), 0),
    };
    let rest = &body[first..];
    put(
        stream,
        format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
            rest.len()
        ),
    );
    put(stream, &rest[..rest.len().min(most)]);
    if rest.len() > most {
        hang_up(stream);
    }
}

#[test]
fn a_body_that_breaks_off_is_resumed_where_it_was_up_to_three_times() {
    let body = pattern(LENGTH);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, sent) = (Arc::clone(&seen), body.clone());
    let origin = Raw::new(move |asked, _, stream| {
        let header = |name| asked.header(name).map(String::from);
        log.lock()
            .unwrap()
            .push((header("range"), header("if-range")));
        serve(asked, stream, "ETag: \"a\"\r\n", &sent, LENGTH / 4);
    });
    let mut fetcher = Fetcher::start(&setup());
    let fetched = fetcher.get(&origin.url("/file"));
    assert_eq!(fetched.whole(), body);
    assert_eq!(origin.requests(), 4);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[0], (None, None));
    for (index, (range, if_range)) in seen.iter().enumerate().skip(1) {
        assert_eq!(
            range.as_deref(),
            Some(&format!("bytes={}-", index * LENGTH / 4)[..])
        );
        assert_eq!(if_range.as_deref(), Some("\"a\""));
    }
    fetcher.stop();
}

#[test]
fn a_fourth_break_ends_it_and_a_body_without_a_validator_ends_at_the_first() {
    let mut fetcher = Fetcher::start(&setup());
    let date = "Last-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\n";
    for (headers, most, requests) in [
        ("ETag: \"a\"\r\n", LENGTH / 5, 4),
        ("ETag: W/\"a\"\r\n", LENGTH / 2, 1),
        ("", LENGTH / 2, 1),
        (date, LENGTH / 2, 1),
    ] {
        let body = pattern(LENGTH);
        let origin = Raw::new(move |asked, _, stream| serve(asked, stream, headers, &body, most));
        let fetched = fetcher.get(&origin.url("/file"));
        assert_eq!(
            (fetched.failure(), origin.requests()),
            (Failure::BrokenOff, requests)
        );
    }
    fetcher.stop();
}

#[test]
fn a_date_resumes_too_when_it_is_a_second_old() {
    let body = pattern(LENGTH);
    let sent = body.clone();
    let origin = Raw::new(move |asked, _, stream| {
        let headers = "Last-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\n\
            Date: Mon, 02 Nov 2026 10:00:09 GMT\r\n";
        serve(asked, stream, headers, &sent, LENGTH / 2);
    });
    let mut fetcher = Fetcher::start(&setup());
    assert_eq!(fetcher.get(&origin.url("/")).whole(), body);
    fetcher.stop();
}

#[test]
fn an_origin_without_ranges_is_read_again_if_it_has_the_same_body() {
    let body = pattern(LENGTH);
    let mut fetcher = Fetcher::start(&setup());
    for (second, same) in [("\"a\"", true), ("\"b\"", false)] {
        let sent = body.clone();
        let origin = Raw::new(move |_, number, stream| {
            let etag = if number == 0 { "\"a\"" } else { second };
            put(stream, format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\n"));
            put(stream, "Transfer-Encoding: chunked\r\n\r\n");
            let most = if number == 0 { LENGTH / 2 } else { LENGTH };
            put(stream, format!("{most:x}\r\n"));
            put(stream, &sent[..most]);
            if number == 0 {
                hang_up(stream);
            }
            put(stream, "\r\n0\r\n\r\n");
        });
        let fetched = fetcher.get(&origin.url("/"));
        if same {
            assert_eq!(fetched.whole(), body);
        } else {
            assert_eq!(fetched.failure(), Failure::BrokenOff);
        }
    }
    fetcher.stop();
}

#[test]
fn a_resumption_that_contradicts_the_first_answer_fails() {
    let mut fetcher = Fetcher::start(&setup());
    for second in [
        "200 OK\r\nETag: \"b\"",
        "206 Partial Content\r\nETag: \"b\"\r\nContent-Range: bytes 5-9/10",
        "206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 4-9/10",
        "206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 5-9/11",
        "206 Partial Content\r\nETag: \"a\"",
        "206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 5-9/10\r\nContent-Encoding: x",
        "416 Range Not Satisfiable",
        "404 Not Found",
    ] {
        let origin = Raw::new(move |_, number, stream| {
            if number == 0 {
                put(
                    stream,
                    "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 10\r\n\r\nfirst",
                );
                hang_up(stream);
            }
            put(
                stream,
                format!("HTTP/1.1 {second}\r\nContent-Length: 5\r\n\r\nAFTER"),
            );
        });
        let fetched = fetcher.get(&origin.url("/"));
        assert_eq!(
            (fetched.failure(), &fetched.body[..]),
            (Failure::BrokenOff, &b"first"[..])
        );
    }
    fetcher.stop();
}

#[test]
fn a_part_that_nobody_asked_for_is_no_body() {
    let part = "Content-Range: bytes 0-4/10\r\n";
    let origin = Raw::fixed(answer("206 Partial Content", part, b"first"));
    let mut fetcher = Fetcher::start(&setup());
    assert_eq!(fetcher.get(&origin.url("/")).failure(), Failure::BrokenOff);
    fetcher.stop();
}

#[test]
fn a_connection_that_closes_before_an_answer_is_tried_once_more() {
    let mut fetcher = Fetcher::start(&setup());
    for closed in [1, 2] {
        let origin = Raw::new(move |_, number, stream| {
            if number < closed {
                hang_up(stream);
            }
            put(stream, answer("200 OK", "", b"here"));
        });
        let fetched = fetcher.get(&origin.url("/"));
        match closed {
            1 => assert_eq!(fetched.whole(), b"here"),
            _ => assert_eq!(fetched.failure(), Failure::BrokenOff),
        }
    }
    fetcher.stop();
}

#[test]
fn lies_about_the_length_are_noticed() {
    let mut fetcher = Fetcher::start(&setup());
    for head in [
        "Content-Length: 10\r\n\r\nfive!",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\nfive!",
        "Content-Length: -1\r\n\r\nfive!",
        "Content-Length: 99999999999999999999\r\n\r\nfive!",
    ] {
        let origin = Raw::new(move |_, _, stream| {
            put(stream, format!("HTTP/1.1 200 OK\r\n{head}"));
            hang_up(stream);
        });
        assert_eq!(
            fetcher.get(&origin.url("/")).failure(),
            Failure::BrokenOff,
            "{head}"
        );
    }
    fetcher.stop();
}

#[test]
fn an_origin_that_is_silent_times_out_in_every_phase() {
    let mut setup = setup();
    setup.start.read_timeout_ms = 100;
    let mut fetcher = Fetcher::start(&setup);
    for sent in [
        "",
        "HTTP/1.1 200 OK\r\nX-",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst",
    ] {
        let origin = Raw::new(move |_, _, stream| put(stream, sent));
        assert_eq!(
            fetcher.get(&origin.url("/")).failure(),
            Failure::Timeout,
            "{sent:?}"
        );
    }
    fetcher.stop();
}

#[test]
fn a_trickle_is_reported_as_it_comes() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Raw::new(move |_, _, stream| {
        put(stream, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n");
        for byte in 0..20_u8 {
            wait.lock().unwrap().recv().unwrap();
            put(stream, [byte]);
        }
    });
    let mut fetcher = Fetcher::start(&setup());
    let file = File::from(granted(b""));
    let job = fetcher.ask(&fetch(&origin.url("/")), &file);
    assert!(matches!(fetcher.receive(), FromFetcher::Head(_)));
    for len in 1..=20 {
        go.send(()).unwrap();
        // The last byte may be told by the end alone.
        let told = fetcher.receive();
        let end = FromFetcher::End { job, len };
        assert!(
            told == FromFetcher::Extent { job, len } || (len == 20 && told == end),
            "{told:?}"
        );
    }
    assert_eq!(content(&file), (0..20).collect::<Vec<u8>>());
    fetcher.stop();
}

#[test]
fn a_file_that_takes_no_more_fails_as_disk() {
    let origin = Raw::fixed(answer("200 OK", "", &pattern(10_000)));
    let sealed = memfd_create("sealed", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    fcntl(&sealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
    let mut limited = setup();
    limited.limit = "-f 8";
    for (setup, file) in [(setup(), sealed), (limited, granted(b""))] {
        let mut fetcher = Fetcher::start(&setup);
        let job = fetcher.ask(&fetch(&origin.url("/")), &File::from(file));
        let ended = loop {
            match fetcher.receive() {
                FromFetcher::Head(_) | FromFetcher::Extent { .. } => (),
                ended => break ended,
            }
        };
        let FromFetcher::Failed {
            job: failed,
            failure: Failure::Disk,
            ..
        } = ended
        else {
            panic!("unexpected {ended:?}");
        };
        assert_eq!(failed, job);
        fetcher.stop();
    }
}

#[test]
fn many_jobs_run_at_once_and_the_rest_wait_their_turn() {
    const JOBS: usize = 300;
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (told, asked) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = Raw::new(move |_, _, stream| {
        put(stream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfir");
        told.lock().unwrap().send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
        put(stream, "st!");
    });
    let mut fetcher = Fetcher::start(&setup());
    let files: Vec<_> = (0..JOBS).map(|_| File::from(granted(b""))).collect();
    let jobs: Vec<_> = files
        .iter()
        .map(|file| fetcher.ask(&fetch(&origin.url("/")), file))
        .collect();
    (0..256).for_each(|_| asked.recv().unwrap());
    let counts = fetcher.counts();
    assert_eq!(
        (counts.requests, counts.transfers, counts.waiting),
        (300, 256, 44)
    );
    (0..JOBS).for_each(|_| go.send(()).unwrap());
    let mut ended = Vec::new();
    while ended.len() < JOBS {
        match fetcher.receive() {
            FromFetcher::End { job, len: 6 } => ended.push(job),
            FromFetcher::Head(_) | FromFetcher::Extent { .. } => (),
            other => panic!("unexpected {other:?}"),
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, jobs);
    assert!(files.iter().all(|file| content(file) == b"first!"));
    fetcher.stop();
}

#[test]
fn with_few_descriptors_there_are_fewer_jobs_and_all_is_well() {
    let origin = Raw::fixed(answer("200 OK", "", b"x"));
    let silent = Raw::new(|_, _, _| ());
    let mut setup = setup();
    setup.limit = "-n 600";
    let mut fetcher = Fetcher::start(&setup);
    let files: Vec<_> = (0..30).map(|_| File::from(granted(b""))).collect();
    let jobs: Vec<_> = files
        .iter()
        .map(|file| fetcher.ask(&fetch(&silent.url("/")), file))
        .collect();
    for expected in &jobs[24..] {
        match fetcher.receive() {
            FromFetcher::Failed {
                job,
                failure: Failure::Internal,
                ..
            } => assert_eq!(job, *expected),
            other => panic!("unexpected {other:?}"),
        }
    }
    jobs.iter()
        .for_each(|job| fetcher.tell(&ToFetcher::Cancel { job: *job }, None));
    assert_eq!(fetcher.get(&origin.url("/")).whole(), b"x");
    fetcher.stop();
}

#[test]
fn a_job_is_cancelled_while_its_origin_is_silent() {
    let (sender, closed) = mpsc::channel();
    let sender = Mutex::new(sender);
    let silent = Raw::new(move |_, _, stream| {
        sender.lock().unwrap().send("asked").unwrap();
        let _ = stream.read(&mut [0]);
        sender.lock().unwrap().send("closed").unwrap();
    });
    let mut fetcher = Fetcher::start(&setup());
    let file = File::from(granted(b""));
    let job = fetcher.ask(&fetch(&silent.url("/")), &file);
    assert_eq!(closed.recv().unwrap(), "asked");
    fetcher.tell(&ToFetcher::Cancel { job }, None);
    // Cancelling what has ended or never was is no fault.
    fetcher.tell(&ToFetcher::Cancel { job }, None);
    fetcher.tell(&ToFetcher::Cancel { job: 999 }, None);
    assert_eq!(closed.recv().unwrap(), "closed");
    let other = Raw::fixed(answer("200 OK", "", b"x"));
    assert_eq!(fetcher.get(&other.url("/")).whole(), b"x");
    fetcher.stop();
}

/// Something a broker or supervisor never sends.
type Wrong = fn(&mut Fetcher, &File);

#[test]
fn a_message_that_means_nothing_ends_the_fetcher() {
    let file = File::from(granted(b""));
    let wrong: [(&str, Wrong); 6] = [
        ("no descriptor", |f, _| {
            f.tell(&ToFetcher::Fetch(fetch("http://h/")), None)
        }),
        ("unexpected descriptor", |f, file| {
            f.tell(&ToFetcher::Cancel { job: 1 }, Some(file))
        }),
        ("second greeting", |f, _| {
            f.tell(&ToFetcher::Hello(Hello::OURS), None)
        }),
        ("same job twice", |f, file| {
            let silent = Raw::new(|_, _, _| ());
            let same = Fetch {
                job: 5,
                ..fetch(&silent.url("/"))
            };
            f.tell(&ToFetcher::Fetch(same.clone()), Some(file));
            f.tell(&ToFetcher::Fetch(same), Some(file));
        }),
        ("garbage", |f, _| f.broker.send(&[9; 20]).unwrap()),
        ("bad order", |f, _| f.control.send(&[9; 64]).unwrap()),
    ];
    for (name, send) in wrong {
        let mut fetcher = Fetcher::start(&setup());
        send(&mut fetcher, &file);
        assert_eq!(fetcher.wait().code(), Some(1), "{name}");
    }
}

#[test]
fn the_fetcher_ends_with_its_broker() {
    let mut fetcher = Fetcher::start(&setup());
    fetcher.close_broker();
    assert_eq!(fetcher.wait().code(), Some(1));
    let mut fetcher = Fetcher::start(&setup());
    fetcher.control.send(&Order::Retire.to_bytes()).unwrap();
    // Still serves its broker.
    let origin = Raw::fixed(answer("200 OK", "", b"x"));
    assert_eq!(fetcher.get(&origin.url("/")).whole(), b"x");
    fetcher.close_broker();
    assert_eq!(fetcher.wait().code(), Some(0));
}
