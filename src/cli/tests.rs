use std::time::Duration;

use r_tftpd_broker::settings::{LogFormat, Sandbox};
use r_tftpd_broker::supervisor::{CacheDirectory, Listen, ListenAddress, ProxySettings, Settings};

use super::*;

fn settings_in(line: &str, environment: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let words = ["r-tftpd"].into_iter().chain(line.split_whitespace());
    let variable = |name: &str| {
        environment
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| (*value).to_owned())
    };
    parse(words).unwrap().into_settings(&variable)
}

fn settings(line: &str) -> Settings {
    settings_in(line, &[]).0
}

fn warnings(line: &str) -> Vec<String> {
    settings_in(line, &[]).1
}

/// What a user sees who gave a bad command line.
fn refused(line: &str) -> String {
    let error = parse(["r-tftpd"].into_iter().chain(line.split_whitespace())).unwrap_err();
    assert_eq!(error.exit_code(), i32::from(USAGE), "{line}");
    error.to_string()
}

#[test]
fn of_an_option_given_twice_the_last_one_counts() {
    // The options of a service come after those of its unit.
    let settings = settings("--root /srv/tftp -t 1 --root /data -t 2");
    assert_eq!(settings.root.to_str(), Some("/data"));
    assert_eq!(settings.timeout, Duration::from_secs(2));
}

#[test]
fn without_options_the_current_directory_is_served_on_port_69() {
    let settings = settings("");
    assert_eq!(
        settings,
        Settings {
            root: ".".into(),
            listen: Listen::Addresses {
                addresses: vec![ListenAddress::ALL],
                port: 69
            },
            user: None,
            sandbox: Sandbox::Strict,
            log: r_tftpd_broker::settings::LogSettings {
                format: LogFormat::Full,
                filter: String::new(),
                priorities: false,
            },
            allow: vec![],
            deny: vec![],
            max_per_client: 1024,
            port_range: None,
            max_connections: 64,
            timeout: Duration::from_secs(3),
            max_retries: 5,
            max_blksize: 65464,
            max_windowsize: 64,
            options: true,
            wrq_devnull: false,
            drain_timeout: Duration::from_secs(5),
            fallback_directory: None,
            proxy: Some(ProxySettings {
                fallback: None,
                cache_directory: CacheDirectory::Candidates(vec!["/var/tmp".into(), "/tmp".into()]),
                cache_size: 1 << 30,
                max_object: 1 << 29,
                cache_entries: 1024,
                stale_if_error: Duration::from_secs(3600),
                ports: vec![(80, 80), (443, 443)],
                ca_files: vec![],
                ca_bundle: None,
                about: true,
                timeout: Duration::from_secs(20),
                user_agent: concat!("r-tftpd/", env!("CARGO_PKG_VERSION")).into(),
            }),
        }
    );
    assert_eq!(warnings(""), Vec::<String>::new());
}

#[test]
fn every_option_of_0_4_0_keeps_its_letter_and_meaning() {
    for (short, long) in [
        ("-s", "--systemd"),
        ("-p 6969", "--port 6969"),
        ("-l 192.0.2.1", "--listen 192.0.2.1"),
        ("-m 64", "--max-connections 64"),
        ("-t 0.5", "--timeout 0.5"),
        (
            "-f http://fallback.example.org/",
            "--fallback http://fallback.example.org/",
        ),
        ("-L json", "--log-format json"),
        ("-C /tmp", "--cache-dir /tmp"),
    ] {
        assert_eq!(settings_in(short, &[]), settings_in(long, &[]), "{short}");
    }
    assert_eq!(settings("-s").listen, Listen::Systemd);
    let addresses = vec!["192.0.2.1".parse().unwrap()];
    let listen = Listen::Addresses {
        addresses,
        port: 6969,
    };
    assert_eq!(settings("-p 6969 -l 192.0.2.1").listen, listen);
    assert_eq!(settings("-m 64").max_connections, 64);
    assert_eq!(settings("-t 0.5").timeout, Duration::from_millis(500));
    for (name, format) in [
        ("default", LogFormat::Full),
        ("compact", LogFormat::Compact),
        ("full", LogFormat::Full),
        ("json", LogFormat::Json),
    ] {
        assert_eq!(settings(&format!("-L {name}")).log.format, format);
    }
    assert!(!settings("--no-rfc2347").options);
    assert!(settings("--wrq-devnull").wrq_devnull);
    assert_eq!(settings("--disable-proxy").proxy, None);
}

#[test]
fn options_of_our_own_are_read() {
    let line = "-r /srv/tftp --user tftp --max-blksize 1428 --max-windowsize 8 --max-retries 3 \
                --sandbox best-effort --max-per-client 4 --port-range 50000-50999 \
                --drain-timeout 0.5";
    let settings = settings(line);
    assert_eq!(settings.root, std::path::Path::new("/srv/tftp"));
    assert_eq!(settings.user.as_deref(), Some("tftp"));
    assert_eq!((settings.max_blksize, settings.max_windowsize), (1428, 8));
    assert_eq!((settings.max_retries, settings.max_per_client), (3, 4));
    assert_eq!(settings.sandbox, Sandbox::BestEffort);
    assert_eq!(settings.port_range, Some((50000, 50999)));
    assert_eq!(settings.drain_timeout, Duration::from_millis(500));
}

#[test]
fn several_addresses_are_listened_on() {
    let Listen::Addresses { addresses, port } =
        settings("-l ::1 -l 127.0.0.1 -l fe80::1%lo").listen
    else {
        panic!("no addresses");
    };
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        (addresses.join(" "), port),
        ("::1 127.0.0.1 fe80::1%lo".into(), 69)
    );
}

#[test]
fn networks_are_lists_and_can_be_repeated() {
    let settings = settings(
        "--allow-net 192.0.2.0/24,2001:db8::/32 --allow-net 10.0.0.0/8 \
                             --deny-net 192.0.2.7",
    );
    let networks: Vec<_> = settings.allow.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8"]);
    assert_eq!(settings.deny.len(), 1);
}

#[test]
fn the_default_log_is_compact_under_systemd() {
    let format = |line, environment| settings_in(line, environment).0.log.format;
    assert_eq!(format("", &[("JOURNAL_STREAM", "8:1")]), LogFormat::Compact);
    assert_eq!(format("", &[("INVOCATION_ID", "0")]), LogFormat::Compact);
    assert_eq!(
        format("-L full", &[("INVOCATION_ID", "0")]),
        LogFormat::Full
    );
    assert_eq!(
        format("-L json", &[("INVOCATION_ID", "0")]),
        LogFormat::Json
    );
}

#[test]
fn rust_log_is_the_filter() {
    assert_eq!(
        settings_in("", &[("RUST_LOG", "debug")]).0.log.filter,
        "debug"
    );
}

#[test]
fn options_without_effect_are_named() {
    for line in ["-f http://fallback.example.org/", "-C /tmp", "--ca-file x"] {
        assert_eq!(warnings(line).len(), 0, "{line}");
        let warnings = warnings(&format!("{line} --disable-proxy"));
        assert!(warnings[0].contains("--disable-proxy"), "{line}");
    }
    assert_eq!(warnings("-f /srv/fallback --disable-proxy").len(), 0);
    assert!(warnings("-s -p 69")[0].contains("socket unit"));
    assert!(warnings("-s -l ::")[0].contains("socket unit"));
}

#[test]
fn a_bad_value_is_refused_with_the_reason_and_an_example() {
    for (line, reason, example) in [
        ("-p tftp", "a number from 0 to 65535", "69"),
        ("-p 65536", "a number from 0 to 65535", "69"),
        ("-l localhost", "not an IP address", "192.0.2.1"),
        ("-l fe80::1", "needs its interface", "fe80::1%eth0"),
        ("-l [::1]:69", "without a port", "--port 6969"),
        ("-m 0", "a number from 1 to", "100"),
        ("-t 0", "seconds from 0.01 to 255", "1.5"),
        ("-t nan", "seconds from 0.01 to 255", "1.5"),
        ("-t inf", "seconds from 0.01 to 255", "1.5"),
        ("-t 3s", "seconds from 0.01 to 255", "1.5"),
        ("--drain-timeout -1", "unexpected argument", "--help"),
        ("--drain-timeout=-1", "seconds from 0 to 3600", "5"),
        ("--max-blksize 7", "a number from 8 to 65464", "1468"),
        ("--max-blksize 65465", "a number from 8 to 65464", "1468"),
        ("--max-windowsize 0", "a number from 1 to 65535", "64"),
        ("--max-retries 0", "a number from 1 to 255", "5"),
        ("--max-per-client 0", "a number from 1 to", "100"),
        (
            "--sandbox off",
            "possible values: strict, best-effort",
            "strict",
        ),
        (
            "-L pretty",
            "possible values: default, compact, full, json",
            "json",
        ),
        (
            "--port-range 50999-50000",
            "the lower one first",
            "50000-50999",
        ),
        ("--port-range 69-70", "from 1024", "50000-50999"),
        ("--port-range 50000", "two ports", "50000-50999"),
        ("--allow-net lan", "not an IP address", "192.0.2.0/24"),
        ("--allow-net 192.0.2.7/24", "did you mean", "192.0.2.0/24"),
        ("--deny-net ::/129", "from 0 to 128", "128"),
        ("-f ftp://h/", "only http and https", "http://fallback"),
        ("-f http+gzip://h/", "modifier \"gzip\"", "https+nocache:"),
        ("-f http://", "no host", "http://fallback"),
        ("-f http://h:0/", "bad port", "http://fallback"),
        ("--cache-size 0", "bytes above 0", "512M"),
        ("--cache-size 1X", "bytes above 0", "512M"),
        ("--cache-size 99999999T", "bytes above 0", "512M"),
        ("--cache-max-object -1", "unexpected argument", "--help"),
        ("--cache-entries 0", "a number from 1 to", "100"),
        ("--stale-if-error day", "seconds from 0 to", "3600"),
        ("--proxy-timeout 0", "seconds from 0.01 to", "20"),
        ("--proxy-ports http", "or any", "80,443,8000-8100"),
        ("--proxy-ports 0", "from 1 to 65535", "80,443,8000-8100"),
        ("--proxy-ports 80,", "ports and ranges", "80,443,8000-8100"),
        ("--proxy-ports 9-8", "ports and ranges", "80,443,8000-8100"),
        ("--rot /srv", "unexpected argument", "--root"),
        (
            "/srv/tftp",
            "invalid value '/srv/tftp' for '[COMMAND]'",
            "self-test",
        ),
        ("--json", "not provided", "COMMAND"),
        ("-r", "a value is required", "--root"),
    ] {
        let message = refused(line);
        assert!(message.contains(reason), "{line}: {message}");
        assert!(message.contains(example), "{line}: {message}");
    }
}

fn proxy(line: &str) -> ProxySettings {
    settings(line).proxy.unwrap()
}

#[test]
fn a_fallback_is_a_url_or_a_directory() {
    let url = "https+nocache://fallback.example.org/boot/";
    let settings = settings(&format!("-f {url}"));
    assert_eq!(settings.fallback_directory, None);
    assert_eq!(settings.proxy.unwrap().fallback.as_deref(), Some(url));
    for line in ["-f /srv/fallback", "-f /srv/fallback --disable-proxy"] {
        let settings = super::tests::settings(line);
        assert_eq!(settings.fallback_directory, Some("/srv/fallback".into()));
        assert!(settings.proxy.is_none_or(|proxy| proxy.fallback.is_none()));
    }
}

#[test]
fn links_may_lead_to_the_usual_ports_and_those_named() {
    let usual = [(80, 80), (443, 443)];
    assert_eq!(proxy("-f https://h/").ports, usual);
    assert_eq!(
        proxy("-f http://h:8080/").ports,
        [(80, 80), (443, 443), (8080, 8080)]
    );
    assert_eq!(
        proxy("--proxy-ports 8000-8100,1").ports,
        [(8000, 8100), (1, 1)]
    );
    assert_eq!(proxy("--proxy-ports 80 -f https://h/").ports, usual);
    assert_eq!(proxy("--proxy-ports any -f http://h:8080/").ports, []);
}

#[test]
fn the_cache_has_a_directory_and_limits() {
    let named = proxy("-C /srv/cache --cache-size 2g --cache-max-object 64K --cache-entries 50");
    assert_eq!(
        named.cache_directory,
        CacheDirectory::Named("/srv/cache".into())
    );
    assert_eq!((named.cache_size, named.max_object), (2 << 30, 64 << 10));
    assert_eq!(named.cache_entries, 50);
    let environment = [("CACHE_DIRECTORY", "/var/cache/a:/b"), ("TMPDIR", "/t")];
    let CacheDirectory::Candidates(paths) = settings_in("", &environment)
        .0
        .proxy
        .unwrap()
        .cache_directory
    else {
        panic!("a directory nobody named");
    };
    let expected = ["/var/cache/a", "/t", "/var/tmp", "/tmp"].map(std::path::PathBuf::from);
    assert_eq!(paths, expected);
}

#[test]
fn what_else_the_proxy_does_is_read() {
    let line = "--stale-if-error 0 --proxy-timeout 0.5 --ca-file a --ca-file b --no-tftp-headers";
    let proxy = proxy(line);
    assert_eq!(proxy.stale_if_error, Duration::ZERO);
    assert_eq!(proxy.timeout, Duration::from_millis(500));
    assert_eq!(proxy.ca_files, [std::path::Path::new("a"), "b".as_ref()]);
    assert!(!proxy.about);
    let bundle = settings_in("", &[("SSL_CERT_FILE", "/ca")])
        .0
        .proxy
        .unwrap()
        .ca_bundle;
    assert_eq!(bundle, Some("/ca".into()));
}

#[test]
fn limits_include_their_ends() {
    assert_eq!(
        settings("-p 0 -t 0.01 --max-blksize 8 --max-windowsize 1").max_blksize,
        8
    );
    assert_eq!(
        settings(
            "-p 65535 -t 255 --max-blksize 65464 --max-windowsize 65535 \
                         --port-range 1024-65535 --drain-timeout 0"
        )
        .max_windowsize,
        65535
    );
}

#[test]
fn help_and_version_are_no_errors() {
    for line in [
        ["r-tftpd", "--help"],
        ["r-tftpd", "-h"],
        ["r-tftpd", "--version"],
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0);
    }
    let version = parse(["r-tftpd", "--version"]).unwrap_err().to_string();
    assert_eq!(version, format!("r-tftpd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn both_helps_fit_100_columns_and_name_every_option() {
    let mut command = command();
    command.build();
    for help in [command.render_help(), command.render_long_help()] {
        let help = help.to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for argument in command.get_arguments() {
            let name = match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => "[COMMAND]".into(),
            };
            assert!(help.contains(&name), "{name}");
            assert_ne!(argument.get_help_heading(), None, "{name}");
        }
    }
    command.debug_assert();
}

#[test]
fn the_self_test_takes_the_options_of_the_service_on_both_sides() {
    for line in [
        "self-test --json --root /srv/tftp",
        "--root /srv/tftp self-test --json",
        "--json --root /srv/tftp self-test",
    ] {
        let arguments = parse(["r-tftpd"].into_iter().chain(line.split(' '))).unwrap();
        assert!(arguments.is_self_test() && arguments.json, "{line}");
        assert_eq!(settings(line), settings("--root /srv/tftp"), "{line}");
    }
    assert!(!parse(["r-tftpd"]).unwrap().is_self_test());
}

#[test]
fn the_short_help_fits_two_screens() {
    let lines = command().render_help().to_string().lines().count();
    assert!(lines <= 80, "{lines} lines");
}

#[test]
fn the_long_help_has_all_that_one_needs_at_a_terminal() {
    let help = command().render_long_help().to_string();
    for word in [
        "Examples:",
        "Environment:",
        "Signals:",
        "RUST_LOG",
        "SIGHUP",
        "Exit status",
    ] {
        assert!(help.contains(word), "{word}");
    }
}
