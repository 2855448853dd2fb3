//! Wrong use ends with one clear line: status 2 for a bad command line, 1 for a failed start.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use r_tftpd_test_support::daemon::{Daemon, message, run_to_end};
use r_tftpd_test_support::files::TempDir;

use crate::R_TFTPD;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(R_TFTPD);
    command.env_clear().args(arguments);
    outcome(&run_to_end(command))
}

fn outcome(output: &Output) -> (Option<i32>, String) {
    (
        output.status.code(),
        String::from_utf8(output.stderr.clone()).unwrap(),
    )
}

#[test]
fn help_and_version_are_printed() {
    for (argument, expected) in [
        ("--help", "--root"),
        ("-h", "--root"),
        ("--version", "r-tftpd "),
    ] {
        let mut command = Command::new(R_TFTPD);
        let output = run_to_end({
            command.arg(argument);
            command
        });
        assert!(output.status.success(), "{argument}");
        assert!(
            String::from_utf8(output.stdout).unwrap().contains(expected),
            "{argument}"
        );
    }
}

#[test]
fn a_bad_value_ends_with_status_2_and_names_option_and_value() {
    for (option, value) in [
        ("--port", "70000"),
        ("--port", "tftp"),
        ("--listen", "300.0.0.1"),
        ("--timeout", "0"),
        ("--timeout", "-1"),
        ("--timeout", "soon"),
        ("--timeout", "nan"),
        ("--max-connections", "0"),
        ("--max-connections", "many"),
        ("--max-per-client", "0"),
        ("--max-blksize", "7"),
        ("--max-blksize", "65465"),
        ("--max-windowsize", "0"),
        ("--max-windowsize", "65536"),
        ("--max-retries", "0"),
        ("--drain-timeout", "x"),
        ("--allow-net", "10.0.0.0/33"),
        ("--allow-net", "10.0.0.1/8"),
        ("--deny-net", "lan"),
        ("--port-range", "5000"),
        ("--port-range", "6000-5000"),
        ("--log-format", "xml"),
        ("--sandbox", "off"),
    ] {
        let (status, text) = run(&[&format!("{option}={value}")]);
        assert_eq!(status, Some(2), "{option} {value}: {text}");
        assert!(
            text.contains(option) && text.contains(value),
            "{option} {value}: {text}"
        );
    }
}

#[test]
fn an_unknown_option_or_argument_ends_with_status_2() {
    for argument in ["--no-such-option", "-Z", "directory"] {
        let (status, text) = run(&[argument]);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(argument), "{text}");
    }
}

#[test]
fn the_start_line_says_whether_links_are_relayed() {
    let (root, cache_directory) = (TempDir::new(), TempDir::new());
    // The user that the daemon becomes must be able to write there.
    fs::set_permissions(cache_directory.path(), Permissions::from_mode(0o777)).unwrap();
    let directory = cache_directory.path().to_str().unwrap();
    for (arguments, proxy, cache) in [
        (&["--cache-dir", directory][..], "on", directory),
        (&["--disable-proxy", "--fallback", directory], "off", "none"),
    ] {
        let daemon = Daemon::start(Path::new(R_TFTPD), root.path(), arguments);
        let serving = daemon.wait_for(|record| message(record) == "serving");
        assert_eq!(serving["fields"]["proxy"], proxy, "{serving}");
        assert_eq!(serving["fields"]["cache"], cache, "{serving}");
    }
}

/// The daemon's end when it can not start, which must be status 1 and one line.
fn failed_start(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(R_TFTPD);
    command
        .env_clear()
        .args(["--port", "0", "--listen", "127.0.0.1", "--root"])
        .arg(root);
    let (status, text) = outcome(&run_to_end({
        command.args(arguments);
        command
    }));
    assert_eq!(status, Some(1), "{text}");
    let errors = text
        .lines()
        .filter(|line| !line.contains("WARN") && !line.contains("INFO"));
    assert_eq!(errors.count(), 1, "{text}");
    text
}

#[test]
fn a_missing_root_is_named() {
    let root = TempDir::new();
    let missing = root.path().join("missing");
    assert!(failed_start(&missing, &[]).contains(missing.to_str().unwrap()));
}

#[test]
fn a_root_that_is_a_file_is_named() {
    let root = TempDir::new();
    let file = root.write("file", b"x");
    assert!(failed_start(&file, &[]).contains(file.to_str().unwrap()));
}

#[test]
fn a_port_in_use_is_named() {
    let root = TempDir::new();
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let mut command = Command::new(R_TFTPD);
    command
        .env_clear()
        .args(["--port", &port, "--listen", "127.0.0.1", "--root"]);
    let (status, text) = outcome(&run_to_end({
        command.arg(root.path());
        command
    }));
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(&port), "{text}");
}

#[test]
fn an_address_of_another_machine_is_named() {
    let root = TempDir::new();
    assert!(failed_start(root.path(), &["--listen", "192.0.2.77"]).contains("192.0.2.77"));
}

#[test]
fn a_missing_sibling_program_is_named() {
    let alone = TempDir::new();
    let root = TempDir::new();
    let program = alone.path().join("r-tftpd");
    fs::copy(R_TFTPD, &program).unwrap();
    let mut command = Command::new(&program);
    command
        .env_clear()
        .args(["--port", "0", "--listen", "127.0.0.1", "--root"])
        .arg(root.path());
    let (status, text) = outcome(&run_to_end(command));
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("r-tftpd-broker") || text.contains("r-tftpd-worker"),
        "{text}"
    );
}

#[test]
fn with_systemd_but_without_sockets_it_says_what_is_missing() {
    let root = TempDir::new();
    let mut command = Command::new(R_TFTPD);
    command
        .env_clear()
        .args(["--systemd", "--root"])
        .arg(root.path());
    let (status, text) = outcome(&run_to_end(command));
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("LISTEN_FDS") || text.contains("socket"),
        "{text}"
    );
}

#[test]
fn an_unknown_user_is_an_error() {
    let root = TempDir::new();
    let mut command = Command::new(R_TFTPD);
    command
        .env_clear()
        .args(["--user", "no-such-user-here", "--port", "0", "--root"]);
    let (status, text) = outcome(&run_to_end({
        command.arg(root.path());
        command
    }));
    // As a plain user the option itself is out of place.
    assert!(matches!(status, Some(1 | 2)), "{text}");
    assert!(
        text.contains("--user") || text.contains("no-such-user-here"),
        "{text}"
    );
}

#[test]
fn a_child_program_started_by_hand_says_how_it_is_started() {
    for program in [
        env!("CARGO_BIN_EXE_r-tftpd-broker"),
        env!("CARGO_BIN_EXE_r-tftpd-worker"),
    ] {
        let output = run_to_end(Command::new(program));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}
