//! Deeds on the process's own memory: none of it may become executable.

use super::super::probe::{KILLED, MAX, Probe, calls};

/// What no process that is locked down may do to its memory.
pub(in super::super) const CALLS: &[Probe] = calls! {
    KILLED "mmap executable" SYS_mmap(0, 4096, 5, 0x22, MAX, 0);
    KILLED "mmap all rights" SYS_mmap(0, 4096, 7, 0x22, MAX, 0);
    KILLED "mprotect executable" SYS_mprotect(0x1000, 4096, 5);
    KILLED "mprotect all rights" SYS_mprotect(0x1000, 4096, 7);
    KILLED "pkey_mprotect" SYS_pkey_mprotect(0, 4096, 7, MAX);
    KILLED "remap_file_pages" SYS_remap_file_pages(0, 4096, 0, 0, 0);
    KILLED "shmat executable" SYS_shmat(0, 0, 0o100_000);
};
