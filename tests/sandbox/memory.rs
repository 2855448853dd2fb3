//! Deeds on the process's own memory.

use nix::errno::Errno;

use crate::probe::{Expected, Probe};
use crate::raw::call;

/// What no process that is locked down may do to its memory: make any of it executable.
pub(crate) fn everywhere<Place>() -> Vec<Probe<Place>> {
    const PRIVATE: usize = 0x22; // MAP_PRIVATE | MAP_ANONYMOUS
    let nothing = usize::MAX;
    vec![
        Probe::kills(
            "mmap executable",
            libc::SYS_mmap,
            &[0, 4096, 5, PRIVATE, nothing, 0],
        ),
        Probe::kills(
            "mmap all rights",
            libc::SYS_mmap,
            &[0, 4096, 7, PRIVATE, nothing, 0],
        ),
        Probe::new("mprotect executable", Expected::Killed, |_| {
            let page = call(libc::SYS_mmap, &[0, 4096, 3, PRIVATE, usize::MAX, 0])?;
            let page = usize::try_from(page).map_err(|_| Errno::EFAULT)?;
            call(libc::SYS_mprotect, &[page, 4096, 5])
        }),
        Probe::new("mprotect own code writable", Expected::Killed, |_| {
            let code = std::process::exit as *const () as usize & !4095;
            call(libc::SYS_mprotect, &[code, 4096, 7])
        }),
        Probe::kills(
            "pkey_mprotect",
            libc::SYS_pkey_mprotect,
            &[0, 4096, 7, nothing],
        ),
        Probe::kills(
            "remap_file_pages",
            libc::SYS_remap_file_pages,
            &[0, 4096, 0, 0, 0],
        ),
        Probe::kills("shmat executable", libc::SYS_shmat, &[0, 0, 0o100_000]),
    ]
}
