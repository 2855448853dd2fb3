//! What the cache may use.

use super::*;

fn small() -> Limits {
    Limits {
        bytes: 100,
        object: 60,
        entries: 3,
        downloads: 2,
        ..Limits::default()
    }
}

fn served(world: &mut World, numbers: &[u64]) -> Vec<u64> {
    numbers
        .iter()
        .copied()
        .filter(|&number| world.is_served(&link(number)))
        .collect()
}

#[test]
fn the_least_recently_used_entry_goes_first() {
    let mut world = World::with(small());
    for number in [1, 2, 3] {
        world.fill(&link(number), FRESH, 10);
    }
    world.ask(&link(1));
    world.fill(&link(4), FRESH, 10);
    assert_eq!(served(&mut world, &[1, 2, 3, 4]), [1, 3, 4]);
    world.fill(&link(5), FRESH, 80 - 30);
    assert_eq!(world.cache.list(world.now.clock).len(), 3);
}

#[test]
fn a_confirmation_is_a_use() {
    let mut world = World::with(small());
    for number in [1, 2, 3] {
        world.fill(&link(number), &[("etag", "\"1\"")], 10);
    }
    let (job, ..) = world.lead(&link(1));
    world.head(
        job,
        304,
        &[("etag", "\"1\""), ("cache-control", "max-age=60")],
        None,
    );
    world.fill(&link(4), FRESH, 10);
    assert_eq!(served(&mut world, &[1, 4]), [1, 4]);
}

#[test]
fn entries_give_way_to_bytes() {
    let mut world = World::with(small());
    world.fill(&link(1), FRESH, 40);
    world.fill(&link(2), FRESH, 40);
    let (job, ..) = world.lead(&link(3));
    world.head(job, 200, FRESH, None);
    world.cache.handle_extent(job, 20);
    assert_eq!(world.cache.bytes(), 100);
    world.cache.handle_extent(job, 21);
    assert_eq!(world.cache.bytes(), 61);
    world.end(job, 21);
    assert_eq!(served(&mut world, &[1, 2, 3]), [2, 3]);
}

#[test]
fn room_is_taken_at_once_when_the_length_is_known() {
    let mut world = World::with(small());
    world.fill(&link(1), FRESH, 60);
    let (job, _reader, _) = world.lead(&link(2));
    world.head(job, 200, FRESH, Some(50));
    assert_eq!(world.cache.bytes(), 50);
    assert_eq!(world.cache.list(world.now.clock).len(), 1);
}

#[test]
fn what_is_read_counts_until_the_last_reader_is_gone() {
    let mut world = World::with(small());
    world.fill(&link(1), FRESH, 60);
    let Answer::Serve(entry) = world.ask(&link(1)) else {
        panic!()
    };
    let file = std::rc::Rc::clone(entry.file());
    world.cache.clear();
    drop(entry);
    assert_eq!((world.cache.bytes(), world.cache.descriptors()), (60, 1));

    let (job, mut reader, _) = world.lead(&link(2));
    world.head(job, 200, FRESH, Some(41));
    assert!(
        matches!(reader.state(), State::Failed(Failure::Disk)),
        "a clean refusal"
    );
    assert_eq!(world.cancels(), [job]);
    drop(reader);

    drop(file);
    assert_eq!((world.cache.bytes(), world.cache.descriptors()), (0, 0));
    world.fill(&link(2), FRESH, 41);
}

#[test]
fn an_entry_in_use_is_passed_over_when_bytes_are_needed() {
    let mut world = World::with(small());
    world.fill(&link(1), FRESH, 40);
    world.fill(&link(2), FRESH, 40);
    let Answer::Serve(_entry) = world.ask(&link(1)) else {
        panic!()
    };
    world.ask(&link(2));
    world.fill(&link(3), FRESH, 60);
    assert_eq!(served(&mut world, &[1, 2, 3]), [1, 3]);
}

#[test]
fn an_object_that_is_too_large_is_refused() {
    let mut world = World::with(small());
    world.fill(&link(9), FRESH, 30);
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 200, FRESH, Some(61));
    assert!(matches!(reader.state(), State::Failed(Failure::TooLarge)));
    let (grown, mut reader, _) = world.lead(&link(1));
    world.head(grown, 200, FRESH, None);
    world.cache.handle_extent(grown, 60);
    assert!(matches!(reader.state(), State::Body { .. }));
    world.cache.handle_extent(grown, 61);
    assert!(matches!(reader.state(), State::Failed(Failure::TooLarge)));
    assert_eq!(world.cancels(), [job, grown]);
    drop(reader);
    assert_eq!(world.cache.bytes(), 30, "nothing was thrown out for it");
}

#[test]
fn nocache_transfers_count_as_well() {
    let mut world = World::with(small());
    let nocache = |number| LinkInfo {
        cache: false,
        ..link(number)
    };
    let (one, mut first, _) = world.lead(&nocache(1));
    let (two, mut second, _) = world.lead(&nocache(2));
    world.head(one, 200, FRESH, Some(60));
    world.head(two, 200, FRESH, Some(41));
    assert!(matches!(first.state(), State::Body { .. }));
    assert!(matches!(second.state(), State::Failed(Failure::Disk)));
}

#[test]
fn too_many_fetches_at_a_time_are_refused() {
    let mut world = World::with(small());
    let (job, _one, _) = world.lead(&link(1));
    let (_, _two, _) = world.lead(&link(2));
    assert!(matches!(world.ask(&link(3)), Answer::Busy));
    let _joined = world.join(&link(1));
    world.head(job, 404, &[], None);
    world.lead(&link(3));
}

#[test]
fn a_download_without_readers_gives_way_to_a_fetch() {
    let mut world = World::with(small());
    let (abandoned, reader, _) = world.lead(&link(1));
    let (_, _two, _) = world.lead(&link(2));
    drop(reader);
    world.lead(&link(3));
    assert_eq!(world.cancels(), [abandoned]);
}

#[test]
fn a_download_without_readers_gives_way_to_bytes() {
    let mut world = World::with(small());
    let (abandoned, reader, _) = world.lead(&link(1));
    world.head(abandoned, 200, FRESH, Some(60));
    drop(reader);
    let (job, mut reader, _) = world.lead(&link(2));
    world.head(job, 200, FRESH, Some(50));
    assert!(matches!(reader.state(), State::Body { .. }));
    assert_eq!(world.cancels(), [abandoned]);
    assert_eq!(world.cache.bytes(), 50);
}

#[test]
fn a_download_without_readers_does_not_give_way_to_itself() {
    let mut world = World::with(small());
    let (old, first, _) = world.lead(&link(1));
    let (new, second, _) = world.lead(&link(2));
    drop((first, second));
    world.head(old, 200, FRESH, None);
    world.head(new, 200, FRESH, Some(50));
    world.cache.handle_extent(old, 51);
    assert_eq!(world.cancels(), [new]);
    world.end(old, 51);
    assert!(world.is_served(&link(1)));
}

#[test]
fn descriptors_are_bounded_also_when_readers_hold_files() {
    let mut world = World::with(small());
    let mut held = Vec::new();
    for number in 0.. {
        assert!(number < 100);
        let id = world.number();
        match world
            .cache
            .request(id, &link(number), None, world.now.clock)
        {
            Answer::Fetch { reader, .. } => {
                let job = world.grant(id);
                world.head(job, 200, FRESH, Some(1));
                world.end(job, 1);
                held.push(reader);
            }
            Answer::Busy => break,
            answer => panic!("{answer:?}"),
        }
        assert!(world.cache.descriptors() <= 5);
    }
    assert_eq!(held.len(), 5);
    held.pop();
    world.fill(&link(500), FRESH, 1);
}

#[test]
fn an_entry_that_is_not_asked_for_goes_after_an_hour() {
    let mut world = World::new();
    let day = [("cache-control", "max-age=86400")];
    world.fill(&link(1), &day, 10);
    world.fill(&link(2), &day, 10);
    world.advance(seconds(1800));
    assert!(world.is_served(&link(2)));
    assert_eq!(
        world.cache.deadline(),
        Some(world.now.clock + seconds(1800))
    );
    world.advance(Duration::from_millis(1_799_999));
    world.cache.handle_timeout(world.now.clock);
    assert_eq!(world.cache.list(world.now.clock).len(), 2);
    world.advance(Duration::from_millis(1));
    world.cache.handle_timeout(world.now.clock);
    assert_eq!(served(&mut world, &[1, 2]), [2]);
    world.advance(seconds(3600));
    world.cache.handle_timeout(world.now.clock);
    assert_eq!(world.cache.deadline(), None);
    assert_eq!((world.cache.bytes(), world.cache.descriptors()), (0, 0));
}

#[test]
fn negative_answers_are_bounded() {
    let mut world = World::new();
    for number in 0..5000 {
        let (job, ..) = world.lead(&link(number));
        world.head(job, 404, &[], None);
        assert!(world.cache.negatives.len() <= store::MAX_NEGATIVES);
    }
    assert!(matches!(world.ask(&link(4999)), Answer::Refused(404)));
    assert!(!world.is_served(&link(0)));
    assert_eq!(world.cache.descriptors(), 0);
}

#[test]
fn a_thousand_objects_go_through_small_limits() {
    let mut world = World::with(small());
    for number in 0..1000 {
        world.fill(&link(number), FRESH, 1 + number % 60);
        assert!(world.cache.bytes() <= 100);
        assert!(world.cache.descriptors() <= 5);
        assert!(world.cache.list(world.now.clock).len() <= 3);
    }
    world.cache.clear();
    assert_eq!((world.cache.bytes(), world.cache.descriptors()), (0, 0));
}

#[test]
fn a_cache_without_entries_still_merges() {
    let mut world = World::with(Limits {
        entries: 0,
        ..small()
    });
    let (job, _reader, _) = world.lead(&link(1));
    world.join(&link(1));
    world.head(job, 200, FRESH, Some(10));
    world.end(job, 10);
    assert!(!world.is_served(&link(1)));
}

#[test]
fn an_object_that_is_empty_is_an_object() {
    let mut world = World::new();
    let (job, mut reader, _) = world.lead(&link(1));
    world.head(job, 204, FRESH, None);
    world.end(job, 0);
    assert!(matches!(reader.state(), State::Body { extent, .. }
        if extent == Extent { len: 0, complete: true }));
    assert!(world.is_served(&link(1)));
}
