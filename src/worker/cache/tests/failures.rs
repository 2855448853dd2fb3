//! What becomes of requests when the origin, the fetcher or the broker fails.

use super::*;

const FAILURES_OF_ORIGIN: [Failure; 7] = [
    Failure::Dns,
    Failure::Refused,
    Failure::Timeout,
    Failure::Tls,
    Failure::Redirects,
    Failure::BrokenOff,
    Failure::Internal,
];

const STALE: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "\"1\"")];

/// Something that happens to a job.
type Act<'a> = &'a dyn Fn(&mut World, u64);

/// A world with an entry for link 1 that has been stale for `stale` seconds.
fn stale_for(stale: u64, headers: &[(&str, &str)]) -> World {
    let mut world = World::new();
    world.fill(&link(1), headers, 10);
    world.advance(seconds(60 + stale));
    world
}

#[test]
fn a_fresh_entry_is_served_whatever_the_origin_does() {
    let mut world = World::new();
    world.fill(&link(1), STALE, 10);
    let (job, ..) = world.lead(&link(2));
    world
        .cache
        .handle_failed(job, Failure::Refused, "", world.now);
    assert!(world.is_served(&link(1)));
}

#[test]
fn a_stale_entry_stands_in_for_a_failing_origin() {
    for failure in FAILURES_OF_ORIGIN {
        let mut world = stale_for(3599, STALE);
        let (job, mut reader, _) = world.lead(&link(1));
        let mut joined = world.join(&link(1));
        world.cache.handle_failed(job, failure, "", world.now);
        assert!(matches!(reader.state(), State::Entry(_)), "{failure:?}");
        assert!(matches!(joined.state(), State::Entry(_)), "{failure:?}");
        assert_eq!(world.cancels(), [0; 0], "the job has ended by itself");
    }
    for status in [408, 429, 500, 502, 503, 504, 599] {
        let mut world = stale_for(10, STALE);
        let (job, mut reader, _) = world.lead(&link(1));
        world.head(job, status, &[("cache-control", "no-store")], Some(5));
        assert!(matches!(reader.state(), State::Entry(_)), "{status}");
        assert_eq!(world.cancels(), [job], "the error's body is not wanted");
    }
}

#[test]
fn beyond_the_window_the_failure_is_told() {
    let mut world = stale_for(3600, STALE);
    let (job, mut reader, _) = world.lead(&link(1));
    world
        .cache
        .handle_failed(job, Failure::Refused, "", world.now);
    assert!(matches!(reader.state(), State::Failed(Failure::Refused)));
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 503, &[], None);
    assert!(matches!(reader.state(), State::Refused(503)));
}

#[test]
fn no_window_means_no_stale_answers() {
    let limits = Limits {
        stale_if_error: Duration::ZERO,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    world.fill(&link(1), STALE, 10);
    world.advance(seconds(60));
    let (job, mut reader, _) = world.lead(&link(1));
    world
        .cache
        .handle_failed(job, Failure::Refused, "", world.now);
    assert!(matches!(reader.state(), State::Failed(Failure::Refused)));
}

//= rfc9111#section-4.2.4
#[test]
fn an_origin_can_forbid_stale_answers() {
    for control in [
        "max-age=60, must-revalidate",
        "max-age=60, Proxy-Revalidate",
        "s-maxage=60",
        "no-cache",
    ] {
        let mut world = stale_for(1, &[("cache-control", control), ("etag", "\"1\"")]);
        let (job, mut reader, _) = world.lead(&link(1));
        world
            .cache
            .handle_failed(job, Failure::Refused, "", world.now);
        assert!(matches!(reader.state(), State::Failed(_)), "{control}");
    }
}

#[test]
fn what_is_not_the_origins_fault_is_told() {
    for failure in [
        Failure::BadUrl,
        Failure::PortNotAllowed { port: 25 },
        Failure::TooLarge,
        Failure::Disk,
    ] {
        let mut world = stale_for(1, STALE);
        let (job, mut reader, _) = world.lead(&link(1));
        world.cache.handle_failed(job, failure, "", world.now);
        assert!(matches!(reader.state(), State::Failed(told) if told == failure));
    }
}

#[test]
fn a_failing_origin_is_asked_again_by_the_next_request() {
    let mut world = stale_for(1, STALE);
    let (job, ..) = world.lead(&link(1));
    world
        .cache
        .handle_failed(job, Failure::Refused, "", world.now);
    let (job, mut reader, validators) = world.lead(&link(1));
    assert!(validators.etag.is_some());
    world.head(job, 200, FRESH, Some(33));
    world.end(job, 33);
    assert!(matches!(reader.state(), State::Body { .. }));
    assert!(world.is_served(&link(1)));
}

#[test]
fn a_silent_origin_is_left_alone_for_a_moment() {
    for failure in [Failure::Timeout, Failure::Dns] {
        let mut world = stale_for(1, STALE);
        let (job, ..) = world.lead(&link(1));
        world.cache.handle_failed(job, failure, "", world.now);
        world.advance(Duration::from_millis(4999));
        assert!(world.is_served(&link(1)));
        world.advance(Duration::from_millis(1));
        assert!(!world.is_served(&link(1)));
    }
}

#[test]
fn a_refused_grant_is_a_failure() {
    let mut world = stale_for(1, STALE);
    let id = world.number();
    let answer = world.cache.request(id, &link(1), None, world.now.clock);
    let Answer::Fetch { mut reader, .. } = answer else {
        panic!("{answer:?}")
    };
    let mut joined = world.join(&link(1));
    world.cache.handle_denied(id, Failure::Disk, world.now);
    assert!(matches!(reader.state(), State::Failed(Failure::Disk)));
    assert!(matches!(joined.state(), State::Failed(Failure::Disk)));
    assert_eq!(world.cache.descriptors(), 1, "that of the entry");
}

#[test]
fn missing_is_remembered_for_five_seconds() {
    for status in [404, 410] {
        let mut world = World::new();
        let (job, mut reader, _) = world.lead(&link(1));
        let mut joined = world.join(&link(1));
        world.head(job, status, &[], Some(100));
        assert_eq!(world.cancels(), [job]);
        assert!(matches!(reader.state(), State::Refused(told) if told == status));
        assert!(matches!(joined.state(), State::Refused(told) if told == status));
        world.advance(Duration::from_millis(4999));
        assert!(matches!(world.ask(&link(1)), Answer::Refused(told) if told == status));
        world.advance(Duration::from_millis(1));
        assert!(!world.is_served(&link(1)));
        world.cache.handle_timeout(world.now.clock);
        assert_eq!(world.cache.deadline(), None);
        assert_eq!(world.cache.descriptors(), 0);
    }
}

#[test]
fn missing_is_remembered_no_longer_than_the_origin_allows() {
    for (control, millis) in [
        ("max-age=2", 2000),
        ("max-age=600", 5000),
        ("public", 5000),
        ("max-age=0", 0),
        ("no-cache", 0),
        ("no-store", 0),
        ("private", 0),
    ] {
        let mut world = World::new();
        let (job, ..) = world.lead(&link(1));
        world.head(job, 404, &[("cache-control", control)], None);
        if millis > 0 {
            world.advance(Duration::from_millis(millis - 1));
            assert!(
                matches!(world.ask(&link(1)), Answer::Refused(404)),
                "{control}"
            );
            world.advance(Duration::from_millis(1));
        }
        assert!(!world.is_served(&link(1)), "{control}");
    }
    let mut world = World::new();
    let (job, ..) = world.lead(&link(1));
    world.head(job, 404, &[("expires", "0")], None);
    assert!(!world.is_served(&link(1)));
}

#[test]
fn other_refusals_are_told_to_all_who_wait_and_asked_again() {
    for status in [400, 401, 403, 405, 500, 503, 300] {
        let mut world = World::new();
        let (job, mut reader, _) = world.lead(&link(1));
        let mut joined = world.join(&link(1));
        world.head(job, status, &[], None);
        assert!(matches!(reader.state(), State::Refused(told) if told == status));
        assert!(matches!(joined.state(), State::Refused(told) if told == status));
        assert!(!world.is_served(&link(1)));
    }
}

#[test]
fn a_private_refusal_is_for_the_leader_a_servers_trouble_for_all() {
    for (status, alone) in [(403, true), (404, true), (503, false)] {
        let mut world = World::new();
        let (job, _reader, _) = world.lead(&link(1));
        let mut joined = world.join(&link(1));
        world.head(job, status, &[("cache-control", "no-store")], None);
        assert_eq!(matches!(joined.state(), State::Alone), alone, "{status}");
    }
}

#[test]
fn what_the_origin_refuses_is_not_served_from_the_past() {
    for status in [401, 403, 404, 410] {
        let mut world = stale_for(1, STALE);
        let (job, mut reader, _) = world.lead(&link(1));
        world.head(job, status, &[], None);
        assert!(matches!(reader.state(), State::Refused(_)));
        world.advance(seconds(10));
        let (job, mut reader, validators) = world.lead(&link(1));
        assert_eq!(validators, Validators::default());
        world
            .cache
            .handle_failed(job, Failure::Refused, "", world.now);
        assert!(matches!(reader.state(), State::Failed(_)));
    }
}

#[test]
fn a_part_is_never_delivered_as_whole_nor_kept() {
    let mut world = World::new();
    let broken: [Act<'_>; 4] = [
        &|world, job| {
            world
                .cache
                .handle_failed(job, Failure::BrokenOff, "", world.now)
        },
        &|world, job| world.end(job, 99),
        &|world, job| world.cache.handle_extent(job, 101),
        &|world, job| world.end(job, 101),
    ];
    for break_off in broken {
        let (job, mut reader, _) = world.lead(&link(1));
        world.head(job, 200, FRESH, Some(100));
        world.cache.handle_extent(job, 60);
        let mut joined = world.join(&link(1));
        break_off(&mut world, job);
        for reader in [&mut reader, &mut joined] {
            assert!(matches!(reader.state(), State::Failed(Failure::BrokenOff)));
        }
        drop((reader, joined));
        assert_eq!((world.cache.bytes(), world.cache.descriptors()), (0, 0));
        assert!(!world.is_served(&link(1)));
    }
}

#[test]
fn an_end_before_what_was_there_is_no_end() {
    let mut world = World::new();
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 200, FRESH, None);
    world.cache.handle_extent(job, 60);
    world.cache.handle_extent(job, 20);
    assert!(matches!(reader.state(), State::Body { extent, .. } if extent.len == 60));
    world.end(job, 59);
    assert!(matches!(reader.state(), State::Failed(Failure::BrokenOff)));
}

#[test]
fn a_new_version_that_breaks_off_leaves_the_old_one() {
    let mut world = stale_for(1, STALE);
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 200, FRESH, Some(100));
    world
        .cache
        .handle_failed(job, Failure::BrokenOff, "", world.now);
    assert!(matches!(reader.state(), State::Failed(_)));
    let (.., validators) = world.lead(&link(1));
    assert_eq!(validators.etag.as_deref(), Some(b"\"1\"".as_slice()));
}

#[test]
fn a_304_to_no_question_is_a_failure() {
    let mut world = World::new();
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 304, &[("etag", "\"1\"")], None);
    assert!(matches!(reader.state(), State::Failed(Failure::Internal)));
    assert_eq!(world.cancels(), [job]);

    world.fill(&link(2), &[("cache-control", "max-age=60")], 10);
    world.advance(seconds(5000));
    let (job, mut reader, validators) = world.lead(&link(2));
    assert_eq!(validators, Validators::default(), "it has none");
    world.head(job, 304, &[], None);
    assert!(matches!(reader.state(), State::Failed(Failure::Internal)));
}

#[test]
fn after_a_304_about_another_answer_the_whole_is_asked_for() {
    let mut world = stale_for(1, STALE);
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 304, &[("etag", "\"2\"")], None);
    assert!(
        matches!(reader.state(), State::Entry(_)),
        "the origin fails, the old one stands in"
    );
    let (.., validators) = world.lead(&link(1));
    assert_eq!(validators, Validators::default());
}

#[test]
fn statuses_that_make_no_sense_are_failures() {
    for status in [0, 100, 201, 206, 600, u16::MAX] {
        let mut world = World::new();
        let (job, mut reader, _) = world.lead(&link(1));
        world.head(job, status, FRESH, Some(10));
        assert!(
            matches!(reader.state(), State::Failed(Failure::Internal)),
            "{status}"
        );
        assert_eq!(world.cancels(), [job]);
    }
}

#[test]
fn events_of_unknown_jobs_and_in_a_wrong_order_do_no_harm() {
    let mut world = World::new();
    world.head(7, 200, FRESH, None);
    world.cache.handle_extent(7, 1);
    world.end(7, 1);
    world.cache.handle_failed(7, Failure::Dns, "", world.now);
    world.cache.handle_denied(7, Failure::Dns, world.now);
    world.cache.handle_granted(7, 8, memfd(), true);
    assert_eq!(world.cancels(), [8], "a job for nobody");
    let wrong: [Act<'_>; 4] = [
        &|world, job| world.cache.handle_extent(job, 1),
        &|world, job| world.end(job, 0),
        &|world, job| {
            world.head(job, 200, FRESH, None);
            world.head(job, 200, FRESH, None);
        },
        &|world, job| {
            world.head(job, 200, FRESH, None);
            world.cache.handle_extent(job, u64::MAX);
        },
    ];
    for events in wrong {
        let (job, mut reader, _) = world.lead(&link(1));
        events(&mut world, job);
        assert!(matches!(reader.state(), State::Failed(_)));
    }
}
