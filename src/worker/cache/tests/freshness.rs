//! For how long an answer is served, and how it is asked for again.

use super::*;

/// Whether an answer with `headers` is served `after` seconds without asking.
fn is_fresh_after(headers: &[(&str, &str)], after: u64) -> bool {
    let mut world = World::new();
    world.fill(&link(1), headers, 10);
    world.advance(seconds(after));
    world.is_served(&link(1))
}

#[track_caller]
fn lifetime(headers: &[(&str, &str)], lifetime: u64) {
    if lifetime > 0 {
        assert!(
            is_fresh_after(headers, lifetime - 1),
            "{headers:?} should live {lifetime} s"
        );
    }
    assert!(
        !is_fresh_after(headers, lifetime),
        "{headers:?} should not outlive {lifetime} s"
    );
}

//= rfc9111#section-4.2.1
#[test]
fn max_age_is_obeyed_and_s_maxage_goes_before_it() {
    lifetime(&[("cache-control", "max-age=60")], 60);
    lifetime(&[("Cache-Control", "Public, Max-Age=60")], 60);
    lifetime(&[("cache-control", "max-age=60, s-maxage=20")], 20);
    lifetime(
        &[
            ("cache-control", "s-maxage=90"),
            ("cache-control", "max-age=5"),
        ],
        90,
    );
    lifetime(&[("cache-control", "max-age=0")], 0);
    lifetime(&[("cache-control", "max-age=-1")], 0);
    lifetime(&[("cache-control", "max-age=soon")], 0);
    lifetime(&[("cache-control", "max-age=99999999999999999999999")], 0);
    assert!(is_fresh_after(
        &[("cache-control", "max-age=18446744073709551615")],
        86_400
    ));
}

//= rfc9111#section-5.3
#[test]
fn expires_is_obeyed_and_an_invalid_one_means_now() {
    let date = ("date", "Fri, 15 Jan 2027 08:00:00 GMT");
    lifetime(&[date, ("expires", "Fri, 15 Jan 2027 08:01:00 GMT")], 60);
    lifetime(&[("expires", "Fri, 15 Jan 2027 08:01:00 GMT")], 60);
    lifetime(&[date, ("expires", "Fri, 15 Jan 2027 07:59:00 GMT")], 0);
    lifetime(&[date, ("expires", "0")], 0);
    lifetime(&[date, ("expires", "-1")], 0);
    lifetime(&[date, ("expires", "tomorrow \u{e9}")], 0);
    lifetime(&[date, ("expires", "0"), ("cache-control", "max-age=9")], 9);
    lifetime(
        &[
            date,
            ("expires", "Fri, 15 Jan 2027 07:59:00 GMT"),
            IMMUTABLE,
        ],
        0,
    );
}

const IMMUTABLE: (&str, &str) = ("cache-control", "immutable");

//= rfc9111#section-5.1
#[test]
fn the_time_in_other_caches_counts() {
    let max_age = ("cache-control", "max-age=60");
    lifetime(&[max_age, ("age", "50")], 10);
    lifetime(&[max_age, ("age", "60")], 0);
    lifetime(&[max_age, ("age", "50, 3")], 10);
    lifetime(&[max_age, ("age", "young")], 60);
    for huge in [
        "2147483649",
        "18446744073709551615",
        "99999999999999999999999999",
    ] {
        lifetime(&[max_age, ("age", huge)], 0);
    }
}

#[test]
fn without_a_lifetime_the_origin_is_asked_each_time() {
    lifetime(&[], 0);
    lifetime(&[("last-modified", "Thu, 15 Jan 2015 08:00:00 GMT")], 0);
    lifetime(&[IMMUTABLE], 0);
    lifetime(
        &[
            ("pragma", "no-cache"),
            ("last-modified", "Thu, 15 Jan 2015 08:00:00 GMT"),
        ],
        0,
    );
}

#[test]
fn no_cache_is_kept_and_asked_for_each_time() {
    for control in [
        "no-cache",
        "No-Cache, max-age=600",
        "max-age=600, no-cache=\"x\"",
    ] {
        let mut world = World::new();
        world.fill(
            &link(1),
            &[("cache-control", control), ("etag", "\"7\"")],
            10,
        );
        let (job, mut reader, validators) = world.lead(&link(1));
        assert_eq!(
            validators.etag.as_deref(),
            Some(b"\"7\"".as_slice()),
            "{control}"
        );
        world.head(job, 304, &[("etag", "\"7\"")], None);
        assert!(matches!(reader.state(), State::Entry(_)), "{control}");
        assert!(!world.is_served(&link(1)), "{control}");
    }
}

#[test]
fn no_store_and_private_leave_nothing() {
    for control in [
        "no-store",
        "max-age=60,\tno-store",
        "NO-STORE",
        "private, max-age=60",
        "Private=\"a\"",
        "private, x=\u{e9}",
    ] {
        let mut world = World::new();
        world.fill(
            &link(1),
            &[("cache-control", control), ("etag", "\"7\"")],
            10,
        );
        assert!(world.cache.list(world.now.clock).is_empty(), "{control}");
        assert_eq!(world.cache.descriptors(), 0, "{control}");
        let (.., validators) = world.lead(&link(1));
        assert_eq!(validators, Validators::default(), "{control}");
    }
}

#[test]
fn an_answer_that_becomes_private_takes_the_kept_one_with_it() {
    let mut world = World::new();
    world.fill(
        &link(1),
        &[("cache-control", "max-age=1"), ("etag", "\"1\"")],
        10,
    );
    world.advance(seconds(2));
    let (job, reader, _) = world.lead(&link(1));
    world.head(job, 200, &[("cache-control", "private")], Some(10));
    assert_eq!(
        world.cache.list(world.now.clock).len(),
        1,
        "the download alone"
    );
    drop(reader);
    assert_eq!(world.cancels(), [job]);
    assert!(world.cache.list(world.now.clock).is_empty());
}

#[test]
fn both_validators_are_sent_and_304_makes_the_entry_fresh_again() {
    let mut world = World::new();
    let modified = "Thu, 15 Jan 2015 08:00:00 GMT";
    let headers = [
        ("cache-control", "max-age=60"),
        ("etag", "W/\"v1\""),
        ("last-modified", modified),
    ];
    world.fill(&link(1), &headers, 10);
    world.advance(seconds(60));
    let (job, mut reader, validators) = world.lead(&link(1));
    assert_eq!(validators.etag.as_deref(), Some(b"W/\"v1\"".as_slice()));
    assert_eq!(
        validators.last_modified.as_deref(),
        Some(modified.as_bytes())
    );
    let mut joined = world.join(&link(1));
    world.head(job, 304, &[("etag", "\"v1\"")], None);
    for reader in [&mut reader, &mut joined] {
        let State::Entry(entry) = reader.state() else {
            panic!("no entry")
        };
        assert_eq!(
            entry.extent(),
            Extent {
                len: 10,
                complete: true
            }
        );
    }
    world.advance(seconds(59));
    assert!(world.is_served(&link(1)));
    world.advance(seconds(1));
    assert!(!world.is_served(&link(1)));
}

//= rfc9111#section-3.2
#[test]
fn a_304_brings_new_headers_and_ends_old_ages() {
    let mut world = World::new();
    let headers = [
        ("cache-control", "max-age=60"),
        ("etag", "\"1\""),
        ("age", "60"),
    ];
    world.fill(&link(1), &headers, 10);
    let (job, ..) = world.lead(&link(1));
    world.head(job, 304, &[("etag", "\"1\"")], None);
    world.advance(seconds(59));
    assert!(world.is_served(&link(1)), "the old Age counts no more");

    world.fill(&link(2), &[("etag", "\"1\"")], 10);
    let (job, ..) = world.lead(&link(2));
    world.head(
        job,
        304,
        &[("etag", "\"1\""), ("cache-control", "max-age=60")],
        None,
    );
    world.advance(seconds(59));
    assert!(
        world.is_served(&link(2)),
        "a header that is new in the 304 counts"
    );

    let date = ("date", "Fri, 15 Jan 2027 08:02:00 GMT");
    let expires = ("expires", "Fri, 15 Jan 2027 08:03:00 GMT");
    world.fill(&link(3), &[("etag", "\"1\""), date, expires], 10);
    world.advance(seconds(300));
    let (job, ..) = world.lead(&link(3));
    world.head(job, 304, &[("etag", "\"1\"")], None);
    assert!(
        !world.is_served(&link(3)),
        "Expires is not counted from the old Date again"
    );
}

#[test]
fn a_304_without_any_validator_confirms_what_was_asked() {
    let mut world = World::new();
    let modified = ("last-modified", "Thu, 15 Jan 2015 08:00:00 GMT");
    world.fill(&link(1), &[modified], 10);
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 304, &[("cache-control", "max-age=9")], None);
    assert!(matches!(reader.state(), State::Entry(_)));
    assert!(world.is_served(&link(1)));
}

#[test]
fn a_304_that_turns_private_serves_only_who_asked() {
    let mut world = World::new();
    world.fill(&link(1), &[("etag", "\"1\"")], 10);
    let (job, mut reader, _) = world.lead(&link(1));
    let mut joined = world.join(&link(1));
    world.head(
        job,
        304,
        &[("etag", "\"1\""), ("cache-control", "private")],
        None,
    );
    assert!(matches!(reader.state(), State::Entry(_)));
    assert!(matches!(joined.state(), State::Alone));
    drop((reader, joined));
    assert!(world.cache.list(world.now.clock).is_empty());
    assert_eq!(world.cache.descriptors(), 0);
}

#[test]
fn a_validator_that_is_too_long_is_not_sent_nor_believed() {
    let mut world = World::new();
    let etag = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    world.fill(&link(1), &[("etag", &etag(192))], 10);
    let (.., validators) = world.lead(&link(1));
    assert_eq!(validators.etag, Some(etag(192).into_bytes()));
    world.fill(&link(2), &[("etag", &etag(193))], 10);
    let (job, _, validators) = world.lead(&link(2));
    assert_eq!(validators, Validators::default());
    world.head(job, 304, &[("cache-control", "max-age=60")], None);
    assert!(!world.is_served(&link(2)));
}

#[test]
fn a_new_body_replaces_the_kept_one() {
    let mut world = World::new();
    world.fill(
        &link(1),
        &[("cache-control", "max-age=1"), ("etag", "\"1\"")],
        10,
    );
    world.advance(seconds(1));
    world.fill(&link(1), FRESH, 25);
    let Answer::Serve(entry) = world.ask(&link(1)) else {
        panic!("not kept")
    };
    assert_eq!(entry.extent().len, 25);
    assert_eq!(world.cache.bytes(), 25);
    assert_eq!(world.cache.descriptors(), 1);
}

#[test]
fn what_can_never_be_used_again_is_not_kept() {
    let mut world = World::new();
    world.fill(&link(1), &[("cache-control", "no-cache")], 10);
    assert!(world.cache.list(world.now.clock).is_empty());
    assert_eq!(world.cache.bytes(), 0);
}

#[test]
fn a_step_of_the_date_makes_nothing_fresh_or_stale() {
    for (back, fresh) in [(false, true), (true, false)] {
        let mut world = World::new();
        world.fill(&link(1), &[("cache-control", "max-age=60")], 10);
        world.now.clock += seconds(if fresh { 59 } else { 60 });
        let day = seconds(86_400);
        world.now.date = if back {
            world.now.date - day
        } else {
            world.now.date + day
        };
        assert_eq!(world.is_served(&link(1)), fresh);
    }
}

#[test]
fn plain_and_compressed_requests_have_entries_of_their_own() {
    let mut world = World::new();
    world.fill(&link(1), FRESH, 10);
    assert!(!world.is_served(&LinkInfo {
        identity: false,
        ..link(1)
    }));
    assert!(world.is_served(&link(1)));
}

#[test]
fn hostile_headers_do_no_harm() {
    let mut world = World::new();
    let headers = vec![
        ("".to_owned(), b"x".to_vec()),
        ("a b\n".to_owned(), b"x".to_vec()),
        ("etag".to_owned(), b"\xff\n\0".to_vec()),
        ("date".to_owned(), b"Thu, 01 Jan 0001 00:00:00 GMT".to_vec()),
        (
            "last-modified".to_owned(),
            b"Fri, 31 Dec 9999 23:59:59 GMT".to_vec(),
        ),
        (
            "expires".to_owned(),
            b"Fri, 31 Dec 9999 23:59:59 GMT".to_vec(),
        ),
        ("vary".to_owned(), b"\0, ,x y,\xff".to_vec()),
        ("age".to_owned(), b"\xff".to_vec()),
        ("cache-control".to_owned(), b",=,=\",;\xff\0=\"\"".to_vec()),
    ];
    let (job, mut reader, _) = world.lead(&link(1));
    let head = Head {
        job,
        status: 200,
        headers,
        length: None,
    };
    world.cache.handle_head(&head, world.now);
    assert!(matches!(reader.state(), State::Body { .. }));
    world.end(job, 3);
    world.advance(seconds(100));
    world.ask(&link(1));
    assert!(!world.cache.list(world.now.clock).is_empty());
}
