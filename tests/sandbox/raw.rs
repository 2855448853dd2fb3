//! System calls as an attacker makes them: past every library, with any argument.
#![allow(unsafe_code)]

use nix::errno::Errno;

/// One system call; arguments left out are zero.
pub(crate) fn call(number: i64, arguments: &[usize]) -> Result<i64, Errno> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the probes pass numbers, and pointers to memory that lives for the call and is as
    // large as the kernel may write. A call that would change this process itself beyond repair
    // is one that the filter has to stop.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}
