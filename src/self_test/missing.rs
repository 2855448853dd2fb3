//! What a kernel lacks, and what a captured process could do for that.

use r_tftpd_broker::control::Facts;
use r_tftpd_broker::supervisor::self_test::InForce;

/// A protection that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// What it is.
    pub(super) what: String,
    /// What follows from that.
    pub(super) follows: &'static str,
}

/// Rights that Landlock has learnt, and what follows where it has not: the ABI that brought each.
pub(super) const RIGHTS: [(u32, &str, &str); 4] = [
    (
        3,
        "Landlock's right to cut files (ABI 3, Linux 6.2)",
        "a captured broker could cut files in the cache directory, which are cache files alone",
    ),
    (
        4,
        "Landlock's rights for TCP ports (ABI 4, Linux 6.7)",
        "a captured fetcher could connect to any TCP port, not only to those of --proxy-ports",
    ),
    (
        5,
        "Landlock's right for device ioctls (ABI 5, Linux 6.10)",
        "nothing: seccomp refuses ioctl to all; there is no second line behind it",
    ),
    (
        6,
        "Landlock's scopes for signals and abstract sockets (ABI 6, Linux 6.12)",
        "nothing: seccomp refuses kill and unix sockets to all; there is no second line behind it",
    ),
];

/// All that is missing.
pub(super) fn all(in_force: &InForce) -> Vec<Missing> {
    let InForce {
        broker,
        worker,
        fetcher,
        ..
    } = in_force;
    let all = || {
        [Some(broker), Some(worker), fetcher.as_ref()]
            .into_iter()
            .flatten()
    };
    let mut missing = Vec::new();
    let mut add = |what: &str, follows| {
        missing.push(Missing {
            what: what.into(),
            follows,
        });
    };
    if !all().all(|facts| facts.system_calls > 0) {
        add(
            "seccomp (CONFIG_SECCOMP_FILTER; x86-64, aarch64 or riscv64)",
            "a captured process could make every system call that its user may: open files, create \
             sockets, start processes; --sandbox strict refuses to start without it",
        );
    }
    let abi = all().map(|facts| facts.landlock_abi).min().unwrap_or(0);
    if abi == 0 {
        add(
            "Landlock (CONFIG_SECURITY_LANDLOCK, \"landlock\" in lsm=, Linux 5.13)",
            "a captured broker could open every file that its user may open, and write where its \
             user may write; a captured fetcher could connect to any TCP port; --sandbox strict \
             refuses to start without it",
        );
    }
    for (version, what, follows) in RIGHTS {
        let concerns = version != 4 || fetcher.is_some();
        if (1..version).contains(&abi) && concerns {
            add(what, follows);
        }
    }
    if !all().all(|facts: &Facts| facts.mdwe) {
        add(
            "memory-deny-write-execute (PR_SET_MDWE, Linux 6.3)",
            "nothing: seccomp refuses executable memory to all; there is no second line behind it",
        );
    }
    if !broker.openat2 {
        add(
            "openat2 (Linux 5.6; or refused by the filter of a container)",
            "nothing: paths are walked component by component, which is slower; that no path leaves \
             the root rests on the broker's code and on Landlock",
        );
    }
    if in_force.bounding_set_kept {
        add(
            "an empty capability bounding set (CapabilityBoundingSet= in a unit clears it)",
            "nothing: with no_new_privs no exec can bring a capability back",
        );
    }
    missing
}
