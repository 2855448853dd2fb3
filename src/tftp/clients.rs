//! The habits of real clients, one test each.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::block::Block;
use super::netascii;
use super::options::Asked;
use super::packet::{Kind, Mode, Packet, Refusal, ack, parse_request};
use super::session::{Extent, Limits, Outcome, Session, Transmit};
use super::simulator::{Client, Habit, Random, World, epoch, limits};

/// A client that speaks by hand to the session its request got.
struct Dialogue {
    session: Session,
    now: Instant,
}

impl Dialogue {
    fn start(request: &[u8], len: u64) -> Self {
        Self::with(request, len, &limits())
    }

    fn with(request: &[u8], len: u64, limits: &Limits) -> Self {
        let request = parse_request(request).unwrap();
        let now = epoch();
        let extent = Extent {
            len,
            complete: true,
        };
        Self {
            session: Session::new(&request.asked, limits, extent, None, now),
            now,
        }
    }

    fn heard(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.session.poll_transmit()).collect()
    }

    fn says(&mut self, datagram: &[u8]) -> Vec<Transmit> {
        self.now += Duration::from_millis(1);
        self.session.handle_datagram(datagram, self.now);
        self.heard()
    }

    fn acks(&mut self, index: u64) -> Vec<Transmit> {
        self.says(&ack(Block::from_index(index)))
    }

    /// Says nothing until the session has an end.
    fn leaves(&mut self) -> Option<Outcome> {
        while let Some(deadline) = self.session.deadline() {
            self.now = deadline;
            self.session.handle_timeout(deadline);
            self.heard();
        }
        self.session.outcome()
    }
}

fn data(range: Range<u64>) -> Vec<Transmit> {
    vec![Transmit::Data(range)]
}

const OACK: [Transmit; 1] = [Transmit::Oack];

#[test]
fn edk2_probes_the_size_with_error_8_and_asks_again() {
    let probe = b"\0\x01BOOTX64.EFI\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
    let mut dialogue = Dialogue::start(probe, 900_000);
    assert_eq!(dialogue.heard(), OACK);
    assert_eq!(
        dialogue.session.oack(),
        b"\0\x06blksize\x001468\0tsize\x00900000\0windowsize\x004\0"
    );
    assert_eq!(
        dialogue.says(b"\0\x05\0\x08User aborted the transfer\0"),
        []
    );
    assert_eq!(dialogue.session.outcome(), Some(Outcome::SizeProbe));
    assert_eq!(dialogue.session.deadline(), None);

    let again = b"\0\x01BOOTX64.EFI\0octet\0blksize\x001468\0windowsize\x004\0";
    let mut dialogue = Dialogue::start(again, 900_000);
    assert_eq!(
        dialogue.session.oack(),
        b"\0\x06blksize\x001468\0windowsize\x004\0"
    );
    dialogue.heard();
    assert_eq!(dialogue.acks(0), data(1..5));
}

#[test]
fn edk2_acks_every_unexpected_block_under_loss_without_a_storm() {
    for seed in 0..200 {
        for blocks in [117, 168] {
            let len = blocks * 64 - 10;
            let mut world = World::new(len, Client::new(64, 4, Habit::Always));
            world.to_client.loss = 10;
            world.to_server.loss = 10;
            world.random = Random::new(seed);
            let ending = world.run();
            assert_eq!(ending.outcome, Outcome::Complete, "seed {seed}");
            let sent = ending.figures.blocks;
            assert!(
                sent < blocks + blocks / 2,
                "seed {seed}: {sent} packets for {blocks} blocks"
            );
        }
    }
}

#[test]
fn edk2_over_ipv6_gets_what_it_asks() {
    let limits = Limits {
        mtu: 1500,
        ipv6: true,
        ..limits()
    };
    let request = b"\0\x01f\0octet\0blksize\x001228\0";
    let dialogue = Dialogue::with(request, 9, &limits);
    assert_eq!(dialogue.session.granted().blksize, 1228);
}

#[test]
fn bios_pxe_aborts_its_probe_with_error_0() {
    let mut dialogue = Dialogue::start(b"\0\x01f\0octet\0tsize\x000\0blksize\x001456\0", 50_000);
    assert_eq!(dialogue.heard(), OACK);
    assert_eq!(dialogue.says(b"\0\x05\0\0TFTP Aborted\0"), []);
    assert_eq!(dialogue.session.outcome(), Some(Outcome::SizeProbe));
}

#[test]
fn syslinux_requires_the_size() {
    let dialogue = Dialogue::start(
        b"\0\x01pxelinux.0\0octet\0tsize\x000\0blksize\x001408\0",
        42,
    );
    assert_eq!(
        dialogue.session.oack(),
        b"\0\x06blksize\x001408\0tsize\x0042\0"
    );
}

#[test]
fn syslinux_searches_by_a_list_of_files_that_miss() {
    let refusal = Refusal::Missing.datagram();
    assert_eq!(
        Packet::parse(&refusal),
        Some(Packet::Error(1, b"File not found"))
    );
}

#[test]
fn ipxe_never_acks_the_final_block_of_an_empty_file() {
    let request = b"\0\x01/autoexec.ipxe\0octet\0blksize\x001432\0tsize\x000\0";
    let mut dialogue = Dialogue::start(request, 0);
    assert_eq!(dialogue.heard(), OACK);
    assert_eq!(dialogue.acks(0), data(1..2));
    assert_eq!(dialogue.leaves(), Some(Outcome::Complete));

    for len in [0, 1432 * 3] {
        let mut client = Client::new(1432, 1, Habit::Once);
        client.leaves_empty_end = true;
        let ending = World::new(len, client).run();
        assert_eq!(ending.outcome, Outcome::Complete);
        assert!(ending.received.is_some());
    }
}

#[test]
fn grub_gets_an_oack_and_closes_early_with_error_0() {
    let request = b"\0\x01/boot/grub/grub.cfg\0octet\0blksize\x001024\0tsize\x000\0";
    let mut dialogue = Dialogue::start(request, 100_000);
    assert_eq!(dialogue.heard(), OACK);
    dialogue.acks(0);
    dialogue.acks(1);
    assert_eq!(dialogue.says(b"\0\x05\0\0closed\0"), []);
    assert_eq!(
        dialogue.session.outcome(),
        Some(Outcome::Aborted { code: 0 })
    );
}

#[test]
fn grub_answers_an_empty_file_with_error_0() {
    let request = b"\0\x01/grub/empty.lst\0octet\0blksize\x001024\0tsize\x000\0";
    for acks_the_oack in [false, true] {
        let mut dialogue = Dialogue::start(request, 0);
        dialogue.heard();
        if acks_the_oack {
            dialogue.acks(0);
        }
        dialogue.says(b"\0\x05\0\0closed\0");
        assert_eq!(dialogue.session.outcome(), Some(Outcome::Complete));
    }
}

#[test]
fn grub_acks_late_and_old_blocks_again() {
    let mut dialogue = Dialogue::start(b"\0\x01f\0octet\0blksize\x001024\0tsize\x000\0", 100_000);
    dialogue.heard();
    for index in 0..50 {
        assert_eq!(dialogue.acks(index), data(index + 1..index + 2));
    }
    for index in (0..50).rev() {
        assert_eq!(dialogue.acks(index), []);
    }
    assert_eq!(dialogue.acks(50), data(51..52));
}

#[test]
fn curl_leaves_silently_once_it_knows_that_the_file_is_empty() {
    let request = b"\0\x01f\0octet\0tsize\x000\0blksize\x00512\0timeout\x006\0";
    let mut dialogue = Dialogue::start(request, 0);
    assert_eq!(dialogue.heard(), OACK);
    assert_eq!(dialogue.leaves(), Some(Outcome::Complete));
}

#[test]
fn curl_in_ascii_mode_asks_for_the_size_of_the_netascii_form() {
    let request = parse_request(b"\0\x01f\0netascii\0tsize\x000\0blksize\x00512\0").unwrap();
    assert_eq!(request.mode, Mode::Netascii);
    let text = b"one\ntwo\n";
    let mut form = Vec::new();
    netascii::encode(text, &mut form);
    assert_eq!(netascii::encoded_len(text), form.len() as u64);
    let extent = Extent {
        len: form.len() as u64,
        complete: true,
    };
    let session = Session::new(&request.asked, &limits(), extent, None, epoch());
    assert_eq!(session.oack(), b"\0\x06blksize\x00512\0tsize\x0010\0");
}

#[test]
fn u_boot_keeps_32_blocks_of_64_and_repeats_its_ack() {
    let mut client = Client::new(1468, 64, Habit::Once);
    client.options.push(("timeout", "5".to_owned()));
    client.keeps = 32;
    let len = 1468 * 400;
    let ending = World::new(len, client).run();
    assert_eq!(ending.outcome, Outcome::Complete);
    assert!(ending.received.is_some());
    assert_eq!(ending.window_cut, Some(32));
    assert!(ending.figures.blocks < 3 * 401, "{ending:?}");
    // 13 rounds of 5 s, and the client's last look at its timer.
    assert!(ending.took < Duration::from_secs(80), "{ending:?}");
}

#[test]
fn u_boot_repeats_its_ack_when_the_window_is_lost() {
    let request = b"\0\x01f\0octet\0timeout\x005\0blksize\x001468\0windowsize\x0064\0";
    let mut dialogue = Dialogue::start(request, 1_000_000);
    dialogue.heard();
    dialogue.acks(0);
    assert_eq!(dialogue.acks(64), data(65..129));
    dialogue.now += Duration::from_millis(4990);
    assert_eq!(dialogue.acks(64), data(65..129));
}

#[test]
fn u_boot_asks_for_a_timeout() {
    let dialogue = Dialogue::start(b"\0\x01f\0octet\0timeout\x005\0blksize\x001468\0", 9);
    assert_eq!(
        dialogue.session.oack(),
        b"\0\x06blksize\x001468\0timeout\x005\0"
    );
}

#[test]
fn barebox_asks_for_windows_of_any_size() {
    let dialogue = Dialogue::start(b"\0\x01f\0octet\0windowsize\x0065535\0", 9);
    assert_eq!(dialogue.session.oack(), b"\0\x06windowsize\x0064\0");
}

#[test]
fn raspberry_pi_4_never_gets_a_block_twice_without_a_timer() {
    let request = b"\0\x01start4.elf\0octet\0blksize\x001468\0tsize\x000\0";
    let mut dialogue = Dialogue::start(request, 1468 * 100);
    dialogue.heard();
    for index in 0..=100 {
        assert_eq!(dialogue.acks(index), data(index + 1..index + 2));
        assert_eq!(dialogue.acks(index), []);
        // It answers a block that came twice with the ACK of one it does not have.
        assert_eq!(dialogue.acks(index + 2), []);
        let early = dialogue.now + Duration::from_millis(2990);
        dialogue.session.handle_timeout(early);
        dialogue.session.handle_repeated_request(early);
        assert_eq!(dialogue.heard(), []);
    }
    assert_eq!(dialogue.session.figures().retransmitted, 0);
}

#[test]
fn raspberry_pi_asks_twice_for_the_same_file() {
    let mut dialogue = Dialogue::start(b"\0\x01config.txt\0octet\0tsize\x000\0", 700);
    assert_eq!(dialogue.heard(), OACK);
    dialogue.session.handle_repeated_request(dialogue.now);
    assert_eq!(dialogue.heard(), OACK);
    assert_eq!(dialogue.acks(0), data(1..2));
    assert_eq!(dialogue.acks(0), []);
    assert_eq!(dialogue.acks(1), data(2..3));
    assert_eq!(dialogue.acks(2), []);
    assert_eq!(dialogue.session.outcome(), Some(Outcome::Complete));
}

#[test]
fn raspberry_pi_2_terminates_early_with_error_0() {
    let mut dialogue = Dialogue::start(b"\0\x01bootcode.bin\0octet\0tsize\x000\0", 50_000);
    dialogue.heard();
    dialogue.says(b"\0\x05\0\0Early terminate\0");
    assert_eq!(dialogue.session.outcome(), Some(Outcome::SizeProbe));
}

#[test]
fn windows_bootmgr_gets_no_msftwindow_and_may_send_acks_of_5_bytes() {
    let request = b"\0\x01\\Boot\\BCD\0octet\0tsize\x000\0blksize\x001456\0windowsize\x004\0\
        msftwindow\x0031416\0";
    assert_eq!(parse_request(request).unwrap().name, b"\\Boot\\BCD");
    let mut dialogue = Dialogue::start(request, 100_000);
    assert_eq!(
        dialogue.session.oack(),
        b"\0\x06blksize\x001456\0tsize\x00100000\0windowsize\x004\0"
    );
    dialogue.heard();
    assert_eq!(dialogue.says(b"\0\x04\0\0\x08"), data(1..5));
    assert_eq!(dialogue.says(b"\0\x04\0\x04\x08"), data(5..9));
}

#[test]
fn shim_asks_for_names_of_any_bytes() {
    for name in [
        &b"grubx64.efi"[..],
        b"\\EFI\\BOOT\\grubx64.efi",
        b"\xef\xbf\xbdOnboard",
        b"\xff\x01",
    ] {
        let mut request = b"\0\x01".to_vec();
        request.extend_from_slice(name);
        request.extend_from_slice(b"\0octet\0blksize\x00512\0windowsize\x004\0");
        let parsed = parse_request(&request).unwrap();
        assert_eq!(parsed.name, name);
        assert_eq!(parsed.asked.windowsize, Some(4));
    }
}

#[test]
fn node_asks_for_a_timeout_of_3000_and_gets_the_rest() {
    let request =
        b"\0\x01f\0octet\0timeout\x003000\0blksize\x001468\0windowsize\x004\0tsize\x000\0";
    let dialogue = Dialogue::start(request, 77);
    assert_eq!(
        dialogue.session.oack(),
        b"\0\x06blksize\x001468\0tsize\x0077\0windowsize\x004\0"
    );
}

#[test]
fn cisco_asks_for_large_blocks() {
    let limits = Limits {
        mtu: 1500,
        ..limits()
    };
    let dialogue = Dialogue::with(b"\0\x01network-confg\0octet\0blksize\x008192\0", 9, &limits);
    assert_eq!(dialogue.session.oack(), b"\0\x06blksize\x001468\0");
}

#[test]
fn cisco_phones_use_no_options() {
    let mut dialogue = Dialogue::start(b"\0\x01SEP001122334455.cnf.xml\0octet\0", 600);
    assert_eq!(dialogue.heard(), data(1..2));
    assert_eq!(dialogue.acks(1), data(2..3));
    dialogue.acks(2);
    assert_eq!(dialogue.session.outcome(), Some(Outcome::Complete));
}

#[test]
fn procurve_uploads_in_netascii() {
    let request = parse_request(b"\0\x02config\0netascii\0").unwrap();
    assert_eq!((request.kind, request.mode), (Kind::Write, Mode::Netascii));
    assert_eq!(request.asked, Asked::default());
}

#[test]
fn esxi_loads_files_of_more_than_65535_blocks() {
    let ending = World::new(178 * 1024 * 8, Client::new(8, 1, Habit::Once)).run();
    assert_eq!(ending.outcome, Outcome::Complete);
    assert!(ending.received.is_some());
}

#[test]
fn slow_flash_of_voip_gateways_is_waited_for() {
    let mut dialogue = Dialogue::start(b"\0\x01firmware\0octet\0", 100_000);
    dialogue.heard();
    dialogue.acks(1);
    let back = dialogue.now + Duration::from_secs(14);
    while dialogue
        .session
        .deadline()
        .is_some_and(|deadline| deadline < back)
    {
        dialogue.now = dialogue.session.deadline().unwrap();
        dialogue.session.handle_timeout(dialogue.now);
        dialogue.heard();
    }
    dialogue.now = back;
    assert_eq!(dialogue.acks(2), data(3..4));
}

#[test]
fn nvidia_dgx_repeats_its_request_from_one_port() {
    let request = b"\0\x01f\0octet\0tsize\x000\0blksize\x001468\0";
    let mut dialogue = Dialogue::start(request, 9000);
    assert_eq!(dialogue.heard(), OACK);
    dialogue.now += Duration::from_secs(2);
    dialogue.session.handle_repeated_request(dialogue.now);
    assert_eq!(dialogue.heard(), OACK);
    // The timer starts again: no second OACK of its own right behind.
    let deadline = dialogue.session.deadline().unwrap();
    assert_eq!(deadline - dialogue.now, Duration::from_secs(3));
}
