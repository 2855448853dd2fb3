//! Deeds that reach for the world: files, processes, sockets, privileges. No process that is
//! locked down may do any of them; none needs a descriptor.

use crate::probe::Probe;
use crate::raw::call;

/// What kills worker and broker alike.
pub(crate) fn everywhere<Place>() -> Vec<Probe<Place>> {
    [
        files(),
        processes(),
        sockets(),
        privileges(),
        kernel(),
        legacy(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The C string at an address that lives as long as the program.
fn text(text: &'static std::ffi::CStr) -> usize {
    text.as_ptr().addr()
}

/// A descriptor argument that means the current directory.
const HERE: usize = libc::AT_FDCWD as usize;

fn files<Place>() -> Vec<Probe<Place>> {
    let (passwd, made) = (text(c"/etc/passwd"), text(c"/tmp/r-tftpd-probe"));
    vec![
        Probe::kills("statx", libc::SYS_statx, &[HERE, passwd, 0, 0x7ff, 0]),
        Probe::kills("faccessat2", libc::SYS_faccessat2, &[HERE, passwd, 4, 0]),
        Probe::kills("faccessat", libc::SYS_faccessat, &[HERE, passwd, 4]),
        Probe::kills("unlinkat", libc::SYS_unlinkat, &[HERE, made, 0]),
        Probe::kills("mkdirat", libc::SYS_mkdirat, &[HERE, made, 0o755]),
        Probe::kills("mknodat", libc::SYS_mknodat, &[HERE, made, 0o100_644, 0]),
        Probe::kills("symlinkat", libc::SYS_symlinkat, &[passwd, HERE, made]),
        Probe::kills("linkat", libc::SYS_linkat, &[HERE, passwd, HERE, made, 0]),
        Probe::kills(
            "renameat2",
            libc::SYS_renameat2,
            &[HERE, passwd, HERE, made, 0],
        ),
        Probe::kills("fchmodat", libc::SYS_fchmodat, &[HERE, passwd, 0o777]),
        Probe::kills("fchownat", libc::SYS_fchownat, &[HERE, passwd, 0, 0, 0]),
        Probe::kills("utimensat", libc::SYS_utimensat, &[HERE, passwd, 0, 0]),
        Probe::kills("truncate", libc::SYS_truncate, &[passwd, 0]),
        Probe::kills(
            "setxattr",
            libc::SYS_setxattr,
            &[passwd, passwd, passwd, 1, 0],
        ),
        Probe::kills("getxattr", libc::SYS_getxattr, &[passwd, passwd, 0, 0]),
        Probe::kills("chdir", libc::SYS_chdir, &[text(c"/")]),
        Probe::kills("getcwd", libc::SYS_getcwd, &[0, 0]),
        Probe::kills("chroot", libc::SYS_chroot, &[text(c"/")]),
        Probe::kills(
            "pivot_root",
            libc::SYS_pivot_root,
            &[text(c"/"), text(c"/")],
        ),
        Probe::kills(
            "mount",
            libc::SYS_mount,
            &[passwd, text(c"/tmp"), text(c"tmpfs"), 0, 0],
        ),
        Probe::kills("umount2", libc::SYS_umount2, &[text(c"/tmp"), 2]),
        Probe::kills("open_tree", libc::SYS_open_tree, &[HERE, text(c"/"), 1]),
        Probe::kills(
            "name_to_handle_at",
            libc::SYS_name_to_handle_at,
            &[HERE, passwd, 0, 0, 0],
        ),
        Probe::kills(
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            &[HERE, 0, 0],
        ),
        Probe::kills("memfd_secret", libc::SYS_memfd_secret, &[0]),
        Probe::kills("inotify_init1", libc::SYS_inotify_init1, &[0]),
        Probe::kills("fanotify_init", libc::SYS_fanotify_init, &[0, 0]),
        Probe::kills("pipe2", libc::SYS_pipe2, &[0, 0]),
    ]
}

fn processes<Place>() -> Vec<Probe<Place>> {
    let child = libc::SIGCHLD as usize;
    let supervisor = || nix::unistd::Pid::parent().as_raw() as usize;
    let parent = supervisor();
    vec![
        Probe::kills("execve", libc::SYS_execve, &[text(c"/bin/true"), 0, 0]),
        Probe::kills(
            "execveat",
            libc::SYS_execveat,
            &[3, text(c""), 0, 0, 0x1000],
        ),
        Probe::kills("clone as fork does", libc::SYS_clone, &[child, 0, 0, 0, 0]),
        Probe::kills(
            "clone a user namespace",
            libc::SYS_clone,
            &[0x1000_0000 | child, 0, 0, 0, 0],
        ),
        Probe::kills(
            "unshare a user namespace",
            libc::SYS_unshare,
            &[0x1000_0000],
        ),
        Probe::kills("unshare the network", libc::SYS_unshare, &[0x4000_0000]),
        Probe::kills("setns", libc::SYS_setns, &[3, 0]),
        Probe::kills(
            "ptrace the supervisor",
            libc::SYS_ptrace,
            &[16, parent, 0, 0],
        ),
        Probe::kills("kill the supervisor", libc::SYS_kill, &[parent, 9]),
        Probe::kills("kill everything", libc::SYS_kill, &[usize::MAX, 0]),
        Probe::kills("tkill the supervisor", libc::SYS_tkill, &[parent, 9]),
        Probe::kills(
            "tgkill the supervisor",
            libc::SYS_tgkill,
            &[parent, parent, 6],
        ),
        Probe::kills(
            "rt_sigqueueinfo",
            libc::SYS_rt_sigqueueinfo,
            &[parent, 9, 0],
        ),
        Probe::kills("pidfd_open", libc::SYS_pidfd_open, &[parent, 0]),
        Probe::kills("pidfd_getfd", libc::SYS_pidfd_getfd, &[3, 3, 0]),
        Probe::kills(
            "pidfd_send_signal",
            libc::SYS_pidfd_send_signal,
            &[3, 9, 0, 0],
        ),
        Probe::kills(
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            &[parent, 0, 0, 0, 0, 0],
        ),
        Probe::kills(
            "process_vm_writev",
            libc::SYS_process_vm_writev,
            &[parent, 0, 0, 0, 0, 0],
        ),
        Probe::kills(
            "process_madvise",
            libc::SYS_process_madvise,
            &[3, 0, 0, 0, 0],
        ),
        Probe::kills("kcmp", libc::SYS_kcmp, &[parent, parent, 0, 0, 0]),
        Probe::kills(
            "sched_setaffinity",
            libc::SYS_sched_setaffinity,
            &[parent, 8, 0],
        ),
        Probe::kills(
            "sched_setscheduler",
            libc::SYS_sched_setscheduler,
            &[0, 1, 0],
        ),
        Probe::kills("setpriority", libc::SYS_setpriority, &[0, parent, 0]),
        Probe::kills("setsid", libc::SYS_setsid, &[]),
        Probe::kills("setpgid", libc::SYS_setpgid, &[0, parent]),
        Probe::kills("wait4", libc::SYS_wait4, &[usize::MAX, 0, 1, 0]),
    ]
}

fn sockets<Place>() -> Vec<Probe<Place>> {
    let kinds: [(&str, i32, i32, i32); 12] = [
        ("TCP socket", libc::AF_INET, libc::SOCK_STREAM, 0),
        ("TCP socket over IPv6", libc::AF_INET6, libc::SOCK_STREAM, 0),
        ("MPTCP socket", libc::AF_INET, libc::SOCK_STREAM, 262),
        (
            "raw socket",
            libc::AF_INET,
            libc::SOCK_RAW,
            libc::IPPROTO_UDP,
        ),
        (
            "ping socket",
            libc::AF_INET,
            libc::SOCK_DGRAM,
            libc::IPPROTO_ICMP,
        ),
        ("unix socket", libc::AF_UNIX, libc::SOCK_STREAM, 0),
        ("unix datagram socket", libc::AF_UNIX, libc::SOCK_DGRAM, 0),
        ("packet socket", libc::AF_PACKET, libc::SOCK_RAW, 0x300),
        ("netlink socket", libc::AF_NETLINK, libc::SOCK_RAW, 0),
        ("vsock socket", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("crypto socket", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("bluetooth socket", libc::AF_BLUETOOTH, libc::SOCK_RAW, 0),
    ];
    let socket = |(name, family, kind, protocol): (&str, i32, i32, i32)| {
        let arguments = [family, kind, protocol].map(|number| number as usize);
        Probe::kills(name, libc::SYS_socket, &arguments)
    };
    let mut probes: Vec<Probe<Place>> = kinds.into_iter().map(socket).collect();
    probes.extend([
        Probe::kills("socketpair", libc::SYS_socketpair, &[1, 2, 0, 0]),
        Probe::kills("listen", libc::SYS_listen, &[3, 1]),
        Probe::kills("accept4", libc::SYS_accept4, &[3, 0, 0, 0]),
    ]);
    probes
}

fn privileges<Place>() -> Vec<Probe<Place>> {
    let root = usize::MAX;
    vec![
        Probe::kills("setuid", libc::SYS_setuid, &[0]),
        Probe::kills("setgid", libc::SYS_setgid, &[0]),
        Probe::kills("setresuid", libc::SYS_setresuid, &[0, 0, 0]),
        Probe::kills("setresgid", libc::SYS_setresgid, &[0, 0, 0]),
        Probe::kills("setreuid", libc::SYS_setreuid, &[root, 0]),
        Probe::kills("setfsuid", libc::SYS_setfsuid, &[0]),
        Probe::kills("setgroups", libc::SYS_setgroups, &[0, 0]),
        Probe::kills("capset", libc::SYS_capset, &[0, 0]),
        Probe::kills("prctl: dumpable again", libc::SYS_prctl, &[4, 1, 0, 0, 0]),
        Probe::kills(
            "prctl: keep capabilities",
            libc::SYS_prctl,
            &[8, 1, 0, 0, 0],
        ),
        Probe::kills(
            "prctl: who may trace",
            libc::SYS_prctl,
            &[0x5961_6d61, root, 0, 0, 0],
        ),
        Probe::kills(
            "prctl: ambient capability",
            libc::SYS_prctl,
            &[47, 2, 10, 0, 0],
        ),
        Probe::kills("prctl: read seccomp", libc::SYS_prctl, &[21, 0, 0, 0, 0]),
        Probe::kills("seccomp: a listener", libc::SYS_seccomp, &[1, 8, 0]),
        Probe::kills(
            "landlock_create_ruleset",
            libc::SYS_landlock_create_ruleset,
            &[0, 0, 1],
        ),
        Probe::kills(
            "landlock_restrict_self",
            libc::SYS_landlock_restrict_self,
            &[3, 0],
        ),
        Probe::kills("personality", libc::SYS_personality, &[0x0040_0000]),
        Probe::kills("keyctl", libc::SYS_keyctl, &[0, 0, 0, 0, 0]),
        Probe::kills(
            "add_key",
            libc::SYS_add_key,
            &[text(c"user"), text(c"x"), 0, 0, 0],
        ),
        Probe::kills("setrlimit of another", libc::SYS_prlimit64, &[1, 7, 0, 0]),
    ]
}

fn kernel<Place>() -> Vec<Probe<Place>> {
    vec![
        Probe::kills("bpf", libc::SYS_bpf, &[0, 0, 0]),
        Probe::kills("io_uring_setup", libc::SYS_io_uring_setup, &[8, 0]),
        Probe::kills(
            "io_uring_enter",
            libc::SYS_io_uring_enter,
            &[3, 1, 0, 0, 0, 0],
        ),
        Probe::kills("io_setup", libc::SYS_io_setup, &[8, 0]),
        Probe::kills(
            "perf_event_open",
            libc::SYS_perf_event_open,
            &[0, 0, 0, 0, 0],
        ),
        Probe::kills("userfaultfd", libc::SYS_userfaultfd, &[1]),
        Probe::kills("reboot", libc::SYS_reboot, &[0, 0, 0, 0]),
        Probe::kills("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, 0]),
        Probe::kills("init_module", libc::SYS_init_module, &[0, 0, 0]),
        Probe::kills("finit_module", libc::SYS_finit_module, &[3, 0, 0]),
        Probe::kills("delete_module", libc::SYS_delete_module, &[text(c"x"), 0]),
        Probe::kills("syslog", libc::SYS_syslog, &[3, 0, 0]),
        Probe::kills("swapon", libc::SYS_swapon, &[text(c"/x"), 0]),
        Probe::kills("acct", libc::SYS_acct, &[0]),
        Probe::kills("quotactl", libc::SYS_quotactl, &[0, 0, 0, 0]),
        Probe::kills("sethostname", libc::SYS_sethostname, &[text(c"x"), 1]),
        Probe::kills("clock_settime", libc::SYS_clock_settime, &[0, 0]),
        Probe::kills("shmget", libc::SYS_shmget, &[0, 4096, 0o1600]),
        Probe::kills("semget", libc::SYS_semget, &[0, 1, 0o1600]),
        Probe::kills("msgget", libc::SYS_msgget, &[0, 0o1600]),
        Probe::kills("mq_open", libc::SYS_mq_open, &[text(c"x"), 0o102, 0o600, 0]),
        Probe::kills("timer_create", libc::SYS_timer_create, &[0, 0, 0]),
        Probe::kills("signalfd4", libc::SYS_signalfd4, &[usize::MAX, 0, 8, 0]),
        Probe::kills("timerfd_create", libc::SYS_timerfd_create, &[1, 0]),
        Probe::kills("no such system call", 9999, &[]),
    ]
}

/// What only the oldest architecture has.
#[cfg(target_arch = "x86_64")]
fn legacy<Place>() -> Vec<Probe<Place>> {
    const X32: i64 = 0x4000_0000;
    vec![
        Probe::kills("open", libc::SYS_open, &[text(c"/etc/passwd"), 0, 0]),
        Probe::kills(
            "creat",
            libc::SYS_creat,
            &[text(c"/tmp/r-tftpd-probe"), 0o644],
        ),
        Probe::kills("stat", libc::SYS_stat, &[text(c"/etc/passwd"), 0]),
        Probe::kills(
            "readlink",
            libc::SYS_readlink,
            &[text(c"/proc/self/exe"), 0, 0],
        ),
        Probe::kills("unlink", libc::SYS_unlink, &[text(c"/tmp/r-tftpd-probe")]),
        Probe::kills(
            "rename",
            libc::SYS_rename,
            &[text(c"/tmp/a"), text(c"/tmp/b")],
        ),
        Probe::kills("chmod", libc::SYS_chmod, &[text(c"/tmp"), 0o777]),
        Probe::new("fork", crate::probe::Expected::Killed, |_| {
            call(libc::SYS_fork, &[])
        }),
        Probe::kills("iopl", libc::SYS_iopl, &[3]),
        Probe::kills("ioperm", libc::SYS_ioperm, &[0, 1024, 1]),
        Probe::kills("modify_ldt", libc::SYS_modify_ldt, &[0, 0, 0]),
        Probe::kills("arch_prctl", libc::SYS_arch_prctl, &[0x1003, 0]),
        Probe::kills("getpid by its x32 number", X32 | libc::SYS_getpid, &[]),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn legacy<Place>() -> Vec<Probe<Place>> {
    Vec::new()
}
