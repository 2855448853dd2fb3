use super::super::simulator::limits;
use super::*;

fn all() -> Asked {
    Asked {
        blksize: Some(1468),
        timeout: Some(5),
        tsize: Some(0),
        windowsize: Some(64),
    }
}

//= rfc2347#negotiation-protocol
#[test]
fn oack_names_what_was_asked_and_nothing_else() {
    let granted = Granted::negotiate(&all(), &limits(), Some(1000));
    assert_eq!(
        granted.oack(),
        b"\0\x06blksize\x001468\0timeout\x005\0tsize\x001000\0windowsize\x0064\0"
    );
    let asked = Asked {
        windowsize: Some(4),
        ..Asked::default()
    };
    let granted = Granted::negotiate(&asked, &limits(), Some(1000));
    assert_eq!(granted.oack(), b"\0\x06windowsize\x004\0");
    assert_eq!(granted.blksize, 512);
}

#[test]
fn without_options_there_is_no_oack() {
    assert!(Granted::negotiate(&Asked::default(), &limits(), Some(1)).is_empty());
    let none = Limits {
        options: false,
        ..limits()
    };
    let granted = Granted::negotiate(&all(), &none, Some(1));
    assert!(granted.is_empty());
    assert_eq!(
        (granted.blksize, granted.windowsize, granted.timeout),
        (512, 1, None)
    );
}

//= rfc2348#blocksize-option-specification
#[test]
fn blksize_fits_the_path_and_the_operators_limit() {
    let granted = |asked: u16, mtu: u32, ipv6: bool, max_blksize: u16| {
        let asked = Asked {
            blksize: Some(asked),
            ..Asked::default()
        };
        let limits = Limits {
            mtu,
            ipv6,
            max_blksize,
            ..limits()
        };
        Granted::negotiate(&asked, &limits, None).blksize
    };
    assert_eq!(granted(1468, 1500, false, 65464), 1468);
    assert_eq!(granted(65464, 1500, false, 65464), 1468);
    assert_eq!(granted(65464, 1500, true, 65464), 1448);
    assert_eq!(granted(1468, 1420, false, 65464), 1388);
    assert_eq!(granted(65464, 65536, false, 65464), 65464);
    assert_eq!(granted(65464, 0, false, 65464), 65464);
    assert_eq!(granted(65464, u32::MAX, true, 65464), 65464);
    assert_eq!(granted(1468, 1500, false, 1024), 1024);
    assert_eq!(granted(8, 1500, false, 1024), 8);
    assert_eq!(granted(1468, 20, false, 65464), 8);
    assert_eq!(granted(1468, 1500, false, 0), 8);
}

#[test]
fn default_blksize_is_not_changed_by_the_path() {
    let limits = Limits {
        mtu: 300,
        max_blksize: 100,
        ..limits()
    };
    assert_eq!(
        Granted::negotiate(&Asked::default(), &limits, None).blksize,
        512
    );
}

//= rfc7440#section-3
#[test]
fn windowsize_is_clamped_by_blocks_and_by_bytes() {
    let granted = |blksize: u16, windowsize: u16, max_windowsize: u16| {
        let asked = Asked {
            blksize: Some(blksize),
            windowsize: Some(windowsize),
            ..Asked::default()
        };
        let limits = Limits {
            max_windowsize,
            ..limits()
        };
        Granted::negotiate(&asked, &limits, None).windowsize
    };
    assert_eq!(granted(1468, 4, 64), 4);
    assert_eq!(granted(1468, 65535, 64), 64);
    assert_eq!(granted(512, 65535, 65535), 65535);
    assert_eq!(granted(65464, 65535, 65535), 512);
    assert_eq!(granted(1468, 4, 0), 1);
}

//= rfc2349#transfer-size-option-specification
#[test]
fn tsize_is_told_only_if_it_is_known() {
    assert_eq!(Granted::negotiate(&all(), &limits(), None).tsize, None);
    assert_eq!(
        Granted::negotiate(&all(), &limits(), Some(u64::MAX)).tsize,
        Some(u64::MAX)
    );
    let unasked = Asked {
        tsize: None,
        ..all()
    };
    assert_eq!(Granted::negotiate(&unasked, &limits(), Some(7)).tsize, None);
}

#[test]
fn records_name_options_in_one_order() {
    assert_eq!(
        all().to_string(),
        "blksize=1468 timeout=5 tsize windowsize=64"
    );
    assert_eq!(Asked::default().to_string(), "");
    let small = Limits {
        max_windowsize: 16,
        ..limits()
    };
    let granted = Granted::negotiate(&all(), &small, Some(9));
    assert_eq!(
        granted.to_string(),
        "blksize=1468 timeout=5 tsize=9 windowsize=16"
    );
    let asked = Asked {
        tsize: Some(0),
        ..Asked::default()
    };
    assert_eq!(asked.to_string(), "tsize");
    assert_eq!(Granted::negotiate(&asked, &limits(), None).to_string(), "");
}
