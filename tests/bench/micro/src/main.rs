//! What each step of a request and of a transfer costs, down to the single system call.
//!
//! `cargo bench -p r-tftpd-micro` measures everything in a minute and a half, with a word behind
//! `--` only the groups whose title has it. `cargo test -p r-tftpd-micro` does everything once, to
//! see that it still works. README.md says how to read the tables.
//!
//! - [`measure`]: batches, samples, medians and the table.
//! - [`packets`], [`sessions`], [`windows`]: the parts of the worker, within this process.
//! - [`sends`]: a window to the network, cut by the kernel or sent datagram by datagram.
//! - [`trips`]: requests through the real broker.
//! - [`layers`]: system calls with more and more of the sandbox; the [`calls`] are made by
//!   processes that have taken so much of it.
//! - [`processes`]: this program again, as the broker or as such a process.

mod calls;
mod layers;
mod measure;
mod packets;
mod processes;
mod sends;
mod sessions;
mod trips;
mod windows;

use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use measure::Bench;
use processes::Role;

// Two files of the worker, which are private to it: compiled in here they need no door in the
// product that only a benchmark would use.
#[allow(unused, reason = "only some of it is measured")]
#[path = "../../../../src/sys.rs"]
mod sys;
#[allow(unused, reason = "only some of it is measured")]
#[path = "../../../../src/worker/window.rs"]
mod window;

/// Where those files look for it.
use r_tftpd::tftp;

fn main() -> ExitCode {
    match Role::of_this_process() {
        Some(Role::Broker) => return r_tftpd_broker::broker::main(|_| ()),
        Some(Role::WorkerCalls) => calls::worker(),
        Some(Role::BrokerCalls) => calls::broker(),
        None => (),
    }
    leave_network();
    let mut bench = Bench::from_arguments();
    packets::run(&mut bench);
    sessions::run(&mut bench);
    windows::run(&mut bench);
    sends::run(&mut bench);
    trips::run(&mut bench);
    layers::run(&mut bench);
    bench.finish()
}

/// Takes a network of its own, where no firewall and no other traffic counts, if it may.
fn leave_network() {
    if geteuid().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.is_ok_and(|status| status.success()), "ip link");
    }
}
