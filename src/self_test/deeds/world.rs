//! Deeds that reach for the world: files, processes, sockets, privileges. No process that is
//! locked down may do any of them; none needs a descriptor.

use super::super::probe::{
    Argument, Deed, EMPTY, HERE, KILLED, MADE, MAX, PASSWD, Probe, SUPERVISOR, X, calls,
};

const SLASH: Argument = Argument::Text(c"/");
const TMP: Argument = Argument::Text(c"/tmp");
const TMPFS: Argument = Argument::Text(c"tmpfs");
const TRUE: Argument = Argument::Text(c"/bin/true");
const USER: Argument = Argument::Text(c"user");

/// Names of files.
pub(in super::super) const FILES: &[Probe] = calls! {
    KILLED "faccessat2" SYS_faccessat2(HERE, PASSWD, 4, 0);
    KILLED "faccessat" SYS_faccessat(HERE, PASSWD, 4);
    KILLED "unlinkat" SYS_unlinkat(HERE, MADE, 0);
    KILLED "mkdirat" SYS_mkdirat(HERE, MADE, 0o755);
    KILLED "mknodat" SYS_mknodat(HERE, MADE, 0o100_644, 0);
    KILLED "symlinkat" SYS_symlinkat(PASSWD, HERE, MADE);
    KILLED "linkat" SYS_linkat(HERE, PASSWD, HERE, MADE, 0);
    KILLED "renameat2" SYS_renameat2(HERE, PASSWD, HERE, MADE, 0);
    KILLED "fchmodat" SYS_fchmodat(HERE, PASSWD, 0o777);
    KILLED "fchownat" SYS_fchownat(HERE, PASSWD, 0, 0, 0);
    KILLED "utimensat" SYS_utimensat(HERE, PASSWD, 0, 0);
    KILLED "truncate" SYS_truncate(PASSWD, 0);
    KILLED "setxattr" SYS_setxattr(PASSWD, PASSWD, PASSWD, 1, 0);
    KILLED "getxattr" SYS_getxattr(PASSWD, PASSWD, 0, 0);
    KILLED "chdir" SYS_chdir(SLASH);
    KILLED "chroot" SYS_chroot(SLASH);
    KILLED "pivot_root" SYS_pivot_root(SLASH, SLASH);
    KILLED "mount" SYS_mount(PASSWD, TMP, TMPFS, 0, 0);
    KILLED "umount2" SYS_umount2(TMP, 2);
    KILLED "open_tree" SYS_open_tree(HERE, SLASH, 1);
    KILLED "name_to_handle_at" SYS_name_to_handle_at(HERE, PASSWD, 0, 0, 0);
    KILLED "open_by_handle_at" SYS_open_by_handle_at(HERE, 0, 0);
    KILLED "memfd_secret" SYS_memfd_secret(0);
    KILLED "inotify_init1" SYS_inotify_init1(0);
    KILLED "fanotify_init" SYS_fanotify_init(0, 0);
    KILLED "pipe2" SYS_pipe2(0, 0);
};

/// Other processes.
pub(in super::super) const PROCESSES: &[Probe] = calls! {
    KILLED "execve" SYS_execve(TRUE, 0, 0);
    KILLED "execveat" SYS_execveat(3, EMPTY, 0, 0, 0x1000);
    KILLED "clone as fork does" SYS_clone(17, 0, 0, 0, 0);
    KILLED "clone a user namespace" SYS_clone(0x1000_0011, 0, 0, 0, 0);
    KILLED "unshare a user namespace" SYS_unshare(0x1000_0000);
    KILLED "unshare the network" SYS_unshare(0x4000_0000);
    KILLED "setns" SYS_setns(3, 0);
    KILLED "ptrace the supervisor" SYS_ptrace(16, SUPERVISOR, 0, 0);
    KILLED "kill the supervisor" SYS_kill(SUPERVISOR, 0);
    KILLED "kill everything" SYS_kill(MAX, 0);
    KILLED "tkill the supervisor" SYS_tkill(SUPERVISOR, 0);
    KILLED "tgkill the supervisor" SYS_tgkill(SUPERVISOR, SUPERVISOR, 6);
    KILLED "rt_sigqueueinfo" SYS_rt_sigqueueinfo(SUPERVISOR, 9, 0);
    KILLED "pidfd_open" SYS_pidfd_open(SUPERVISOR, 0);
    KILLED "pidfd_getfd" SYS_pidfd_getfd(3, 3, 0);
    KILLED "pidfd_send_signal" SYS_pidfd_send_signal(3, 9, 0, 0);
    KILLED "process_vm_readv" SYS_process_vm_readv(SUPERVISOR, 0, 0, 0, 0, 0);
    KILLED "process_vm_writev" SYS_process_vm_writev(SUPERVISOR, 0, 0, 0, 0, 0);
    KILLED "process_madvise" SYS_process_madvise(3, 0, 0, 0, 0);
    KILLED "kcmp" SYS_kcmp(SUPERVISOR, SUPERVISOR, 0, 0, 0);
    KILLED "sched_setaffinity" SYS_sched_setaffinity(SUPERVISOR, 8, 0);
    KILLED "sched_setscheduler" SYS_sched_setscheduler(0, 1, 0);
    KILLED "setpriority" SYS_setpriority(0, SUPERVISOR, 0);
    KILLED "setsid" SYS_setsid();
    KILLED "setpgid" SYS_setpgid(0, SUPERVISOR);
    KILLED "wait4" SYS_wait4(MAX, 0, 1, 0);
};

/// Ways to the network, and to other processes on this machine.
pub(in super::super) const SOCKETS: &[Probe] = calls! {
    KILLED "MPTCP socket" SYS_socket(2, 1, 262);
    KILLED "raw socket" SYS_socket(2, 3, 17);
    KILLED "ping socket" SYS_socket(2, 2, 1);
    KILLED "unix socket" SYS_socket(1, 1, 0);
    KILLED "unix datagram socket" SYS_socket(1, 2, 0);
    KILLED "packet socket" SYS_socket(17, 3, 0x300);
    KILLED "netlink socket" SYS_socket(16, 3, 0);
    KILLED "vsock socket" SYS_socket(40, 1, 0);
    KILLED "crypto socket" SYS_socket(38, 5, 0);
    KILLED "bluetooth socket" SYS_socket(31, 3, 0);
    KILLED "SCTP socket" SYS_socket(2, 1, 132);
    KILLED "UDP-Lite socket that blocks" SYS_socket(2, 2, 136);
    KILLED "socketpair" SYS_socketpair(1, 2, 0, 0);
    KILLED "listen" SYS_listen(3, 1);
    KILLED "accept4" SYS_accept4(3, 0, 0, 0);
};

/// Rights, and what is left of them.
pub(in super::super) const PRIVILEGES: &[Probe] = calls! {
    KILLED "setuid" SYS_setuid(0);
    KILLED "setgid" SYS_setgid(0);
    KILLED "setresuid" SYS_setresuid(0, 0, 0);
    KILLED "setresgid" SYS_setresgid(0, 0, 0);
    KILLED "setreuid" SYS_setreuid(MAX, 0);
    KILLED "setfsuid" SYS_setfsuid(0);
    KILLED "setgroups" SYS_setgroups(0, 0);
    KILLED "capset" SYS_capset(0, 0);
    KILLED "prctl: dumpable again" SYS_prctl(4, 1, 0, 0, 0);
    KILLED "prctl: keep capabilities" SYS_prctl(8, 1, 0, 0, 0);
    KILLED "prctl: who may trace" SYS_prctl(0x5961_6d61, MAX, 0, 0, 0);
    KILLED "prctl: ambient capability" SYS_prctl(47, 2, 10, 0, 0);
    KILLED "prctl: read seccomp" SYS_prctl(21, 0, 0, 0, 0);
    KILLED "seccomp: a listener" SYS_seccomp(1, 8, 0);
    KILLED "landlock_create_ruleset" SYS_landlock_create_ruleset(0, 0, 1);
    KILLED "landlock_restrict_self" SYS_landlock_restrict_self(3, 0);
    KILLED "personality" SYS_personality(0x0040_0000);
    KILLED "keyctl" SYS_keyctl(0, 0, 0, 0, 0);
    KILLED "add_key" SYS_add_key(USER, X, 0, 0, 0);
};

/// Rarely used parts of the kernel, where its errors are.
pub(in super::super) const KERNEL: &[Probe] = calls! {
    KILLED "bpf" SYS_bpf(0, 0, 0);
    KILLED "io_uring_setup" SYS_io_uring_setup(8, 0);
    KILLED "io_uring_enter" SYS_io_uring_enter(3, 1, 0, 0, 0, 0);
    KILLED "io_setup" SYS_io_setup(8, 0);
    KILLED "perf_event_open" SYS_perf_event_open(0, 0, 0, 0, 0);
    KILLED "userfaultfd" SYS_userfaultfd(1);
    KILLED "reboot" SYS_reboot(0, 0, 0, 0);
    KILLED "kexec_load" SYS_kexec_load(0, 0, 0, 0);
    KILLED "init_module" SYS_init_module(0, 0, 0);
    KILLED "finit_module" SYS_finit_module(3, 0, 0);
    KILLED "delete_module" SYS_delete_module(X, 0);
    KILLED "syslog" SYS_syslog(3, 0, 0);
    KILLED "swapon" SYS_swapon(X, 0);
    KILLED "acct" SYS_acct(0);
    KILLED "quotactl" SYS_quotactl(0, 0, 0, 0);
    KILLED "sethostname" SYS_sethostname(X, 1);
    KILLED "clock_settime" SYS_clock_settime(0, 0);
    KILLED "shmget" SYS_shmget(0, 4096, 0o1600);
    KILLED "semget" SYS_semget(0, 1, 0o1600);
    KILLED "msgget" SYS_msgget(0, 0o1600);
    KILLED "mq_open" SYS_mq_open(X, 0o102, 0o600, 0);
    KILLED "timer_create" SYS_timer_create(0, 0, 0);
    KILLED "signalfd4" SYS_signalfd4(MAX, 0, 8, 0);
    KILLED "timerfd_create" SYS_timerfd_create(1, 0);
};

/// The same system call by other numbers.
pub(in super::super) const NUMBERS: &[Probe] = &[
    Probe {
        name: "no such system call",
        expected: KILLED,
        deed: Deed::Call(9999, &[]),
    },
    #[cfg(target_arch = "x86_64")]
    Probe {
        name: "getpid by its x32 number",
        expected: KILLED,
        deed: Deed::Call(0x4000_0000 | libc::SYS_getpid, &[]),
    },
];

/// What only the oldest architecture has.
#[cfg(target_arch = "x86_64")]
pub(in super::super) const LEGACY: &[Probe] = calls! {
    KILLED "creat" SYS_creat(MADE, 0o644);
    KILLED "stat" SYS_stat(PASSWD, 0);
    KILLED "readlink" SYS_readlink(EXE, 0, 0);
    KILLED "unlink" SYS_unlink(MADE);
    KILLED "rename" SYS_rename(MADE, MADE);
    KILLED "chmod" SYS_chmod(TMP, 0o777);
    KILLED "iopl" SYS_iopl(3);
    KILLED "ioperm" SYS_ioperm(0, 1024, 1);
    KILLED "modify_ldt" SYS_modify_ldt(0, 0, 0);
    KILLED "arch_prctl" SYS_arch_prctl(0x1003, 0);
    KILLED "fork" SYS_fork();
    KILLED "vfork" SYS_vfork();
};

/// What only the oldest architecture has.
#[cfg(not(target_arch = "x86_64"))]
pub(in super::super) const LEGACY: &[Probe] = &[];

#[cfg(target_arch = "x86_64")]
const EXE: Argument = Argument::Text(c"/proc/self/exe");

/// What libraries of a fetcher try, and cope without: worker and broker never try it.
pub(in super::super) const TRIED: &[Probe] = calls! {
    KILLED "TCP socket" SYS_socket(2, 1, 0);
    KILLED "TCP socket over IPv6" SYS_socket(10, 1, 0);
    KILLED "statx" SYS_statx(HERE, PASSWD, 0, 0x7ff, 0);
    KILLED "getcwd" SYS_getcwd(0, 0);
    KILLED "setrlimit of another" SYS_prlimit64(1, 7, 0, 0);
};
