use super::*;
use crate::broker::budget::CHARGE;

fn limits(max_per_client: u32) -> Limits {
    Limits::new(Vec::new(), Vec::new(), max_per_client, 20_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn only_allowed_networks_that_are_not_denied_are_answered() {
    let network = |text: &str| vec![text.parse().unwrap()];
    let mut limits = Limits::new(network("10.0.0.0/8"), network("10.1.0.0/16"), 10, 10);
    let now = Instant::now();
    assert_eq!(limits.admit(ip("10.2.0.1"), 1, now), Ok(CHARGE));
    assert_eq!(limits.admit(ip("10.1.0.1"), 1, now), Err(Excess::Network));
    assert_eq!(limits.admit(ip("192.0.2.1"), 1, now), Err(Excess::Network));
    assert_eq!(
        limits.admit(ip("2001:db8::1"), 1, now),
        Err(Excess::Network)
    );
}

#[test]
fn an_address_has_its_number_of_requests_and_no_more() {
    let (mut limits, now) = (limits(2), Instant::now());
    let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(limits.admit(one, 1, now), Ok(CHARGE));
    assert_eq!(limits.admit(one, 2, now), Ok(CHARGE));
    assert_eq!(limits.admit(one, 3, now), Err(Excess::PerClient));
    assert_eq!(limits.admit(other, 3, now), Ok(CHARGE));
    limits.release(one, 1);
    assert_eq!(limits.admit(one, 4, now), Ok(CHARGE));
    assert_eq!(limits.give_way(one, now), None);
}

#[test]
fn the_oldest_silent_request_of_an_address_gives_way() {
    let (mut limits, now) = (limits(3), Instant::now());
    let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    limits.admit(other, 1, now).unwrap();
    for id in 2..=4 {
        limits.admit(one, id, now).unwrap();
    }
    limits.prove(2);
    assert_eq!(limits.admit(one, 5, now), Err(Excess::PerClient));
    let later = now + GRACE;
    for (id, oldest) in [(5, 3), (6, 4)] {
        assert_eq!(limits.admit(one, id, later), Ok(CHARGE));
        assert_eq!(limits.give_way(one, later), Some(oldest));
    }
    assert_eq!(limits.admit(one, 7, later), Err(Excess::PerClient));
    // What gave way counts until it has ended.
    for id in [3, 4] {
        limits.release(one, id);
        assert_eq!(limits.admit(one, 8, later), Err(Excess::PerClient));
    }
    limits.release(one, 2);
    assert_eq!(limits.admit(one, 8, later), Ok(CHARGE));
    assert_eq!(limits.give_way(one, later), None);
}

#[test]
fn a_worker_that_ends_nothing_gets_a_bounded_number_of_requests() {
    let (mut limits, now) = (limits(1000), Instant::now());
    let one = ip("192.0.2.1");
    let last = (0..5000)
        .take_while(|id| {
            let now = now + if *id < 1000 { Duration::ZERO } else { GRACE };
            let admitted = limits.admit(one, *id, now).is_ok();
            limits.give_way(one, now);
            admitted
        })
        .count();
    assert_eq!(last, 1000 + usize::try_from(GIVING_WAY).unwrap());
}

#[test]
fn requests_that_are_all_proven_never_give_way() {
    let (mut limits, now) = (limits(2), Instant::now());
    let one = ip("192.0.2.1");
    for id in 1..=2 {
        limits.admit(one, id, now).unwrap();
        limits.prove(id);
    }
    assert_eq!(limits.admit(one, 3, now + GRACE), Err(Excess::PerClient));
}

#[test]
fn before_there_is_no_room_at_all_the_oldest_silent_request_gives_way() {
    let mut limits = Limits::new(Vec::new(), Vec::new(), 10, 128);
    let now = Instant::now();
    for id in 0..112 {
        let peer = IpAddr::from([192, 0, 2, u8::try_from(id).unwrap()]);
        limits.admit(peer, id, now).unwrap();
        assert_eq!(limits.give_way(peer, now + GRACE), None, "{id}");
    }
    let peer = ip("198.51.100.1");
    limits.admit(peer, 500, now + GRACE).unwrap();
    assert_eq!(limits.give_way(peer, now + GRACE), Some(0));
}

#[test]
fn nothing_is_kept_of_ended_requests() {
    let (mut limits, now) = (limits(2), Instant::now());
    for host in 0..=255 {
        let peer = IpAddr::from([192, 0, 2, host]);
        assert_eq!(limits.admit(peer, host.into(), now), Ok(CHARGE));
        limits.release(peer, host.into());
    }
    let kept = (limits.clients.len(), limits.silent.len());
    assert_eq!((kept, limits.outstanding), ((0, 0), 0));
}

#[test]
fn the_number_of_all_requests_is_bounded() {
    let mut limits = Limits::new(Vec::new(), Vec::new(), 10, 3);
    let now = Instant::now();
    for host in 0..3 {
        assert_eq!(
            limits.admit(IpAddr::from([192, 0, 2, host]), host.into(), now),
            Ok(CHARGE)
        );
    }
    assert_eq!(
        limits.admit(ip("198.51.100.1"), 9, now),
        Err(Excess::Outstanding)
    );
    limits.release(ip("192.0.2.0"), 0);
    assert_eq!(limits.admit(ip("198.51.100.1"), 9, now), Ok(CHARGE));
}

#[test]
fn ten_thousand_clients_behind_one_prefix_start_at_once() {
    let (mut limits, now) = (limits(10_000), Instant::now());
    for client in 0..10_000_u64 {
        assert_eq!(
            limits.admit(ip("192.0.2.1"), client, now),
            Ok(CHARGE),
            "client {client}"
        );
    }
}
