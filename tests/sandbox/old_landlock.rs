//! A kernel with an older Landlock: a filter has the kernel ask us when a process wants to know the
//! version, and we answer. seccomp_unotify(2)

use std::process::{Command, ExitCode};
use std::thread;

use crate::raw::call;

/// Runs `program` where Landlock has this version; ends as it does.
pub(crate) fn main(version: i64, mut program: Command) -> ExitCode {
    let listener = listen();
    // It only looks for the filter, and only its children make the calls that wait for an answer.
    thread::spawn(move || {
        loop {
            answer(listener, version);
        }
    });
    let status = program.status().unwrap();
    ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap())
}

/// Loads the filter; the descriptor by which the kernel asks.
fn listen() -> usize {
    // struct sock_filter: offsets in struct seccomp_data are 0 for the call, 32 for its third argument.
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let (load, equal, answer) = (0x20, 0x15, 0x06);
    let create_ruleset = u32::try_from(libc::SYS_landlock_create_ruleset).unwrap();
    let mut steps = [
        step(load, 0, 0, 0),
        step(equal, 0, 3, create_ruleset),
        step(load, 0, 0, 32),
        // LANDLOCK_CREATE_RULESET_VERSION
        step(equal, 0, 1, 1),
        step(answer, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 6,
        filter: steps.as_mut_ptr(),
    };
    let no_new_privileges = libc::PR_SET_NO_NEW_PRIVS as usize;
    call(libc::SYS_prctl, &[no_new_privileges, 1, 0, 0, 0]).unwrap();
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    let flags = usize::try_from(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER).unwrap();
    let program = (&raw const program).addr();
    let listener = call(libc::SYS_seccomp, &[mode, flags, program]).unwrap();
    usize::try_from(listener).unwrap()
}

/// Answers one question.
fn answer(listener: usize, version: i64) {
    // SECCOMP_IOCTL_NOTIF_RECV and _SEND, with the sizes of their structures.
    const RECEIVE: usize = 0xc050_2100;
    const SEND: usize = 0xc018_2101;
    let mut question = [0_u64; 10];
    // The process may have been killed meanwhile.
    if call(
        libc::SYS_ioctl,
        &[listener, RECEIVE, question.as_mut_ptr().addr()],
    )
    .is_ok()
    {
        let answer = [question[0], version.cast_unsigned(), 0];
        let _ = call(libc::SYS_ioctl, &[listener, SEND, answer.as_ptr().addr()]);
    }
}
