//! Floods a TFTP server with what attackers send. In a network namespace only: it forges senders.
//!
//! Prints one JSON object. What the server sends back is for others to count, but in `acks`.

mod acks;
mod forged;
mod options;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use forged::Forger;
use options::{Mode, Options, USAGE};
use r_tftpd_bench::chance::Chance;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("r-tftpd-flood: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match options.mode {
        Mode::Requests => flood(&options, request),
        Mode::Junk => flood(&options, junk),
        Mode::Acks => println!("{}", acks::storm(&options)),
    }
    ExitCode::SUCCESS
}

/// Sends datagrams from forged senders: each sender in turn, from another port in each turn.
fn flood(options: &Options, payload: fn(&Options, &mut Chance, &mut Vec<u8>)) {
    let mut forger = Forger::new(options.server);
    let mut chance = Chance::new(options.seed);
    let (mut bytes, mut sent, mut sent_bytes) = (Vec::new(), 0_u64, 0);
    let start = Instant::now();
    while options.total == 0 || sent < options.total {
        if sent.is_multiple_of(64) {
            if start.elapsed() >= options.limit {
                break;
            }
            pace(options.rate, sent, start);
        }
        let turn = sent / u64::from(options.sources);
        let port = u64::from(options.port) + turn % u64::from(u16::MAX - options.port);
        let source = u32::try_from(sent % u64::from(options.sources)).expect("a source");
        let address = (u32::from(options.first) + source).into();
        payload(options, &mut chance, &mut bytes);
        sent_bytes += forger.send(address, u16::try_from(port).expect("a port"), &bytes);
        sent += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{{\"sent\":{sent},\"bytes\":{sent_bytes},\"seconds\":{seconds:.6}}}");
}

/// Waits until `sent` datagrams were due; `rate` in a second, 0 = no limit.
fn pace(rate: u64, sent: u64, start: Instant) {
    if rate == 0 {
        return;
    }
    let due = start + Duration::from_nanos(sent * 1_000_000_000 / rate);
    sleep(due.saturating_duration_since(Instant::now()));
}

/// The request for which a server would send most: large blocks in large windows, and others.
fn request(options: &Options, chance: &mut Chance, payload: &mut Vec<u8>) {
    const OPTIONS: [&[u8]; 4] = [
        b"",
        b"blksize\x001428\0windowsize\x0064\0",
        b"windowsize\x0064\0timeout\x001\0",
        b"tsize\x000\0blksize\x0065464\0windowsize\x0065535\0",
    ];
    payload.clear();
    payload.extend(b"\0\x01");
    payload.extend(options.name.as_bytes());
    payload.extend(b"\0octet\0");
    payload.extend(OPTIONS[chance.below(OPTIONS.len())]);
}

/// Any opcode, any length up to what fits the MTU, any contents; half begin as requests, so that
/// the broker hands them on.
fn junk(_: &Options, chance: &mut Chance, payload: &mut Vec<u8>) {
    /// 1500 bytes without the headers of IP and UDP.
    const LONGEST: usize = 1472;
    let length = chance.below(LONGEST + 1);
    payload.clear();
    while payload.len() < length {
        payload.extend(chance.draw().to_le_bytes());
    }
    payload.truncate(length);
    if length >= 2 {
        let opcode = chance.below(16);
        payload[0] = 0;
        payload[1] = match opcode {
            0..8 => u8::try_from(1 + opcode % 2).expect("1 or 2"),
            _ => u8::try_from(opcode - 8).expect("a small number"),
        };
    }
}
