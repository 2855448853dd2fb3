//! The state machine of a transfer: from an ACK to what is to be sent.

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use r_tftpd::tftp::block::Block;
use r_tftpd::tftp::options::Asked;
use r_tftpd::tftp::packet::ack;
use r_tftpd::tftp::session::{Extent, Outcome, Session, Transmit};

use crate::measure::{Bench, Per};
use crate::packets::LIMITS;

/// A file without end.
const ENDLESS: u64 = 1 << 60;

/// Time between two events of a session; nobody waits for it.
const STEP: Duration = Duration::from_millis(1);

/// Measures them.
pub fn run(bench: &mut Bench) {
    if !bench.group("session steps", Bench::COLUMNS) {
        return;
    }
    for windowsize in [1, 16, 64] {
        let mut transfer = Transfer::new(1468, windowsize, ENDLESS);
        let name = format!("ACK to next window, windowsize {windowsize}");
        bench.run(&name, Per::Blocks(windowsize.into()), || {
            black_box(transfer.acknowledge(transfer.window.end - 1));
        });
    }
    let mut transfer = Transfer::new(1468, 16, ENDLESS);
    bench.run("gap report to window again", Per::Operation, || {
        let middle = transfer.window.start + 7;
        let again = transfer.acknowledge(middle);
        assert!(again, "the gap is answered");
    });
    let mut transfer = Transfer::new(1468, 16, ENDLESS);
    transfer.acknowledge(16);
    bench.run("timeout to window again", Per::Operation, || {
        assert!(transfer.time_out(), "the window is sent again");
    });
    let mut transfer = Transfer::new(1468, 16, ENDLESS);
    bench.run("stale ACK", Per::Operation, || {
        let stale = transfer.window.start.wrapping_sub(1000);
        assert!(!transfer.acknowledge(stale), "it is ignored");
    });
    for (blksize, windowsize) in [(512, 1), (1468, 1), (1468, 16), (1468, 64)] {
        let len = if bench.is_quick() { 1 << 20 } else { 64 << 20 };
        let blocks = u32::try_from(len / u64::from(blksize)).expect("few") + 1;
        let name = format!("whole transfer of 64 MiB, {blksize}/{windowsize}");
        bench.run(&name, Per::Blocks(blocks), || {
            let mut transfer = Transfer::new(blksize, windowsize, len);
            while transfer.acknowledge(transfer.window.end - 1) {}
            assert_eq!(transfer.session.outcome(), Some(Outcome::Complete));
        });
    }
}

/// A session, its client and the time.
struct Transfer {
    session: Session,
    now: Instant,
    /// What was sent last.
    window: Range<u64>,
}

impl Transfer {
    /// The client has acknowledged the OACK.
    fn new(blksize: u16, windowsize: u16, len: u64) -> Self {
        let asked = Asked {
            blksize: Some(blksize),
            windowsize: Some(windowsize),
            ..Asked::default()
        };
        let extent = Extent {
            len,
            complete: true,
        };
        let now = Instant::now();
        let session = Session::new(&asked, &LIMITS, extent, None, now);
        let mut transfer = Self {
            session,
            now,
            window: 0..0,
        };
        assert_eq!(transfer.session.poll_transmit(), Some(Transmit::Oack));
        assert!(transfer.acknowledge(0), "the first window");
        transfer
    }

    /// Whether anything is to be sent after the ACK of a block.
    fn acknowledge(&mut self, index: u64) -> bool {
        self.now += STEP;
        let datagram = ack(Block::from_index(index));
        self.session.handle_datagram(black_box(&datagram), self.now);
        self.take()
    }

    /// Whether anything is to be sent after the deadline.
    fn time_out(&mut self) -> bool {
        self.now = self.session.deadline().expect("a deadline");
        self.session.handle_timeout(self.now);
        self.take()
    }

    fn take(&mut self) -> bool {
        let mut any = false;
        while let Some(Transmit::Data(blocks)) = self.session.poll_transmit() {
            self.window = blocks;
            any = true;
        }
        any
    }
}
