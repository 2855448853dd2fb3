//! Who shares a fetch with whom.

use std::rc::Rc;

use super::*;

#[test]
fn any_number_of_simultaneous_requests_cause_one_fetch() {
    let mut world = World::new();
    let id = world.number();
    let answer = world.cache.request(id, &link(1), None, world.now.clock);
    let Answer::Fetch { mut reader, .. } = answer else {
        panic!("{answer:?}")
    };
    let mut readers: Vec<_> = (0..200).map(|_| world.join(&link(1))).collect();
    let job = world.grant(id);
    readers.extend((0..200).map(|_| world.join(&link(1))));
    world.head(job, 200, FRESH, Some(100));
    readers.extend((0..200).map(|_| world.join(&link(1))));
    world.cache.handle_extent(job, 40);
    readers.extend((0..200).map(|_| world.join(&link(1))));
    let State::Body {
        file,
        extent,
        length,
    } = reader.state()
    else {
        panic!("no body")
    };
    assert_eq!(
        (extent, length),
        (
            Extent {
                len: 40,
                complete: false
            },
            Some(100)
        )
    );
    for reader in &mut readers {
        let State::Body { file: other, .. } = reader.state() else {
            panic!("no body")
        };
        assert!(Rc::ptr_eq(&file, &other));
    }
    world.end(job, 100);
    let Answer::Serve(entry) = world.ask(&link(1)) else {
        panic!("not kept")
    };
    assert!(Rc::ptr_eq(entry.file(), &file));
    assert_eq!(world.cache.list(world.now.clock)[0].hits, 801);
    assert_eq!(world.cache.descriptors(), 1);
}

#[test]
fn late_requests_join_even_when_the_lifetime_is_over() {
    let mut world = World::new();
    let (job, _reader, _) = world.lead(&link(1));
    world.head(job, 200, &[("etag", "\"1\"")], Some(100));
    world.advance(seconds(500));
    world.join(&link(1));
}

#[test]
fn a_download_goes_on_for_the_cache_when_its_readers_leave() {
    let mut world = World::new();
    let (job, reader, _) = world.lead(&link(1));
    drop(reader);
    assert_eq!(
        world.cancels(),
        [0; 0],
        "it is not known yet whether it can be kept"
    );
    world.head(job, 200, FRESH, Some(100));
    assert_eq!(world.cancels(), [0; 0]);
    world.end(job, 100);
    assert!(world.is_served(&link(1)));
}

#[test]
fn the_leader_may_leave_before_the_grant() {
    let mut world = World::new();
    let id = world.number();
    let answer = world.cache.request(id, &link(1), None, world.now.clock);
    let mut joined = world.join(&link(1));
    drop(answer);
    let job = world.grant(id);
    world.head(job, 200, FRESH, None);
    world.end(job, 8);
    assert!(matches!(joined.state(), State::Body { extent, .. } if extent.complete));
}

#[test]
fn private_and_no_store_are_for_the_leader_only() {
    for control in ["private", "no-store"] {
        let mut world = World::new();
        let (job, mut reader, _) = world.lead(&link(1));
        let mut early = world.join(&link(1));
        assert!(matches!(early.state(), State::Waiting));
        world.head(job, 200, &[("cache-control", control)], Some(100));
        assert!(matches!(reader.state(), State::Body { .. }));
        assert!(matches!(early.state(), State::Alone));
        let id = world.number();
        let answer = world.cache.fetch_alone(id, &link(1), None);
        assert!(matches!(answer, Answer::Fetch { validators, .. }
            if validators == Validators::default()));
        let (second, ..) = world.lead(&link(1));
        assert_ne!(job, second, "a later request leads a fetch of its own");
        drop(early);
        world.end(job, 100);
        assert!(matches!(reader.state(), State::Body { extent, .. } if extent.complete));
    }
}

#[test]
fn an_early_failure_of_a_private_answer_is_not_for_those_who_waited() {
    let mut world = World::new();
    let (job, mut reader, _) = world.lead(&link(1));
    let mut joined = world.join(&link(1));
    world.head(job, 200, &[("cache-control", "private")], Some(100));
    world
        .cache
        .handle_failed(job, Failure::BrokenOff, "", world.now);
    assert!(matches!(reader.state(), State::Failed(Failure::BrokenOff)));
    assert!(matches!(joined.state(), State::Alone));
}

#[test]
fn a_private_answer_without_readers_is_cancelled() {
    let mut world = World::new();
    let (job, reader, _) = world.lead(&link(1));
    drop(reader);
    assert_eq!(world.cancels(), [0; 0]);
    world.head(job, 200, &[("cache-control", "private")], Some(100));
    assert_eq!(world.cancels(), [job]);
    assert_eq!((world.cache.descriptors(), world.cache.bytes()), (0, 0));
}

#[test]
fn vary_separates_those_who_differ() {
    let mut world = World::new();
    let [one, two] = [about("192.0.2.1"), about("192.0.2.2")];
    let (job, ..) = world.lead_as(&link(1), Some(&one));
    let Answer::Join(mut same) = world.ask_as(&link(1), Some(&one)) else {
        panic!()
    };
    let Answer::Join(mut other) = world.ask_as(&link(1), Some(&two)) else {
        panic!()
    };
    let headers = [
        ("cache-control", "max-age=60"),
        ("Vary", "Accept-Encoding, X-TFTP-Client"),
    ];
    world.head(job, 200, &headers, Some(100));
    assert!(matches!(same.state(), State::Body { .. }));
    assert!(matches!(other.state(), State::Alone));
    let Answer::Join(_) = world.ask_as(&link(1), Some(&one)) else {
        panic!()
    };
    let Answer::Fetch { .. } = world.ask_as(&link(1), Some(&two)) else {
        panic!()
    };
    world.end(job, 100);
    assert!(matches!(
        world.ask_as(&link(1), Some(&one)),
        Answer::Serve(_)
    ));
    let Answer::Fetch { validators, .. } = world.ask_as(&link(1), Some(&two)) else {
        panic!()
    };
    assert_eq!(validators, Validators::default());
}

#[test]
fn vary_separates_also_when_the_answer_is_negative_or_stale() {
    let mut world = World::new();
    let [one, two] = [about("192.0.2.1"), about("192.0.2.2")];
    let vary = ("vary", "x-tftp-client");
    let (job, ..) = world.lead_as(&link(1), Some(&one));
    world.head(job, 404, &[vary], None);
    assert!(matches!(
        world.ask_as(&link(1), Some(&one)),
        Answer::Refused(404)
    ));
    assert!(matches!(
        world.ask_as(&link(1), Some(&two)),
        Answer::Fetch { .. }
    ));

    let (job, ..) = world.lead_as(&link(2), Some(&one));
    world.head(job, 200, &[vary, ("etag", "\"1\"")], None);
    world.end(job, 10);
    let (job, mut reader, validators) = world.lead_as(&link(2), Some(&two));
    assert_eq!(validators, Validators::default());
    world
        .cache
        .handle_failed(job, Failure::Refused, "", world.now);
    assert!(matches!(reader.state(), State::Failed(_)));
    let (job, mut reader, _) = world.lead_as(&link(2), Some(&one));
    world
        .cache
        .handle_failed(job, Failure::Refused, "", world.now);
    assert!(matches!(reader.state(), State::Entry(_)));
}

#[test]
fn vary_by_what_is_the_same_for_all_separates_nobody() {
    let mut world = World::new();
    let headers = [
        ("cache-control", "max-age=60"),
        ("vary", "accept-encoding, user-agent, host"),
    ];
    world.fill(&link(1), &headers, 10);
    let other = about("192.0.2.2");
    assert!(matches!(
        world.ask_as(&link(1), Some(&other)),
        Answer::Serve(_)
    ));
}

#[test]
fn vary_by_everything_is_for_one_request() {
    let mut world = World::new();
    let (job, mut reader, _) = world.lead(&link(1));
    let mut joined = world.join(&link(1));
    world.head(
        job,
        200,
        &[("cache-control", "max-age=60"), ("vary", "accept, *")],
        Some(10),
    );
    assert!(matches!(reader.state(), State::Body { .. }));
    assert!(matches!(joined.state(), State::Alone));
    world.end(job, 10);
    assert!(!world.is_served(&link(1)));
}

#[test]
fn nocache_links_are_asked_every_time_and_never_merged() {
    let mut world = World::new();
    let nocache = LinkInfo {
        cache: false,
        ..link(1)
    };
    let (first, one, validators) = world.lead(&nocache);
    let (second, mut two, _) = world.lead(&nocache);
    assert_eq!(validators, Validators::default());
    for job in [first, second] {
        world.head(job, 200, FRESH, Some(10));
    }
    drop(one);
    assert_eq!(
        world.cancels(),
        [first],
        "nobody waits for it, nothing keeps it"
    );
    world.end(second, 10);
    assert!(matches!(two.state(), State::Body { extent, .. } if extent.complete));
    drop(two);
    assert_eq!((world.cache.descriptors(), world.cache.bytes()), (0, 0));
    let (.., validators) = world.lead(&nocache);
    assert_eq!(validators, Validators::default());
    assert!(
        !world.is_served(&link(1)),
        "nor is it there for the same link with caching"
    );
}

#[test]
fn a_nocache_link_gets_no_kept_or_negative_answer() {
    let mut world = World::new();
    let nocache = LinkInfo {
        cache: false,
        ..link(1)
    };
    world.fill(&link(1), FRESH, 10);
    let (job, ..) = world.lead(&nocache);
    world.head(job, 404, &[], None);
    assert!(
        world.is_served(&link(1)),
        "nor does its answer change what is kept"
    );
    let (job, ..) = world.lead(&link(2));
    world.head(job, 404, &[], None);
    world.lead(&LinkInfo {
        cache: false,
        ..link(2)
    });
}

#[test]
fn a_nocache_fetch_that_nobody_waits_for_ends_with_its_grant() {
    let mut world = World::new();
    let id = world.number();
    let nocache = LinkInfo {
        cache: false,
        ..link(1)
    };
    drop(world.cache.request(id, &nocache, None, world.now.clock));
    assert_eq!(world.cancels(), [0; 0]);
    let job = world.grant(id);
    assert_eq!(world.cancels(), [job]);
    assert_eq!(world.cache.descriptors(), 0);
}

#[test]
fn clear_forgets_all_and_running_transfers_go_on() {
    let mut world = World::new();
    world.fill(&link(1), FRESH, 10);
    let Answer::Serve(entry) = world.ask(&link(1)) else {
        panic!()
    };
    let (running, mut reader, _) = world.lead(&link(2));
    world.head(running, 200, FRESH, Some(10));
    let (lonely, left, _) = world.lead(&link(3));
    world.head(lonely, 200, FRESH, Some(10));
    drop(left);
    let (missing, ..) = world.lead(&link(4));
    world.head(missing, 404, &[], None);
    assert_eq!(world.cancels(), [missing]);

    world.cache.clear();
    assert_eq!(world.cancels(), [lonely]);
    assert_eq!(entry.extent().len, 10);
    assert_eq!(world.cache.bytes(), 20, "what is read still counts");
    assert!(matches!(world.ask(&link(1)), Answer::Fetch { .. }));
    assert!(matches!(world.ask(&link(2)), Answer::Fetch { .. }));
    assert!(matches!(world.ask(&link(4)), Answer::Fetch { .. }));
    world.end(running, 10);
    assert!(matches!(reader.state(), State::Body { extent, .. } if extent.complete));
    assert!(
        !matches!(world.ask(&link(2)), Answer::Serve(_)),
        "asked before the clearing"
    );
}

#[test]
fn the_list_names_url_size_freshness_and_hits() {
    let mut world = World::new();
    world.fill(&link(1), FRESH, 10);
    world.ask(&link(1));
    world.advance(seconds(100));
    world.ask(&link(1));
    let (job, _reader, _) = world.lead(&link(2));
    world.head(job, 200, FRESH, Some(100));
    world.cache.handle_extent(job, 30);
    let kept = Some((seconds(500), seconds(100)));
    assert_eq!(
        world.cache.list(world.now.clock),
        [
            Listed {
                display: link(1).display,
                size: 10,
                hits: 2,
                kept
            },
            Listed {
                display: link(2).display,
                size: 30,
                hits: 0,
                kept: None
            },
        ]
    );
}

#[tokio::test]
async fn readers_wake_for_each_change() {
    let mut world = World::new();
    let (job, mut reader, _) = world.lead(&link(1));
    let mut joined = world.join(&link(1));
    // Each reader reports what it saw, and the fetch goes on when both have.
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let follow = async |reader: &mut Reader| {
        let mut seen = Vec::new();
        loop {
            let state = reader.state();
            report.send(()).unwrap();
            match state {
                State::Waiting => {}
                State::Body { extent, .. } => {
                    seen.push((extent.len, extent.complete));
                    if extent.complete {
                        return seen;
                    }
                }
                state => panic!("{state:?}"),
            }
            reader.changed().await;
        }
    };
    let fetch = async {
        for event in 0..4 {
            reports.recv().await.unwrap();
            reports.recv().await.unwrap();
            match event {
                0 => world.head(job, 200, FRESH, None),
                3 => world.end(job, 20),
                _ => world.cache.handle_extent(job, event * 10),
            }
        }
    };
    let both = async { tokio::join!(follow(&mut reader), follow(&mut joined), fetch) };
    let (one, two, ()) = tokio::time::timeout(seconds(10), both).await.unwrap();
    assert_eq!(one, [(0, false), (10, false), (20, false), (20, true)]);
    assert_eq!(two, one);
}
