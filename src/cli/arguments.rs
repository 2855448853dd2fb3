//! Every option with its help text, and what it means for the supervisor.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum, ValueHint};
use r_tftpd_broker::net::Network;
use r_tftpd_broker::settings::{LogFormat, LogSettings, Sandbox};
use r_tftpd_broker::supervisor::{Listen, ListenAddress, Settings};

use super::proxy::Proxy;
use super::{JOURNAL_STREAM, help, values};
use crate::log;

/// The port that RFC 1350 gives to TFTP.
const TFTP_PORT: u16 = 69;

/// TFTP server for network boot. Serves the files below one directory, from processes that can each
/// do next to nothing.
#[derive(Debug, Parser)]
#[command(name = "r-tftpd", version, max_term_width = 100, after_help = help::SHORT)]
#[command(after_long_help = help::LONG)]
#[command(
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true
)]
pub(super) struct Arguments {
    /// Directory to serve; nothing outside of it can be read
    ///
    /// It is opened before rights are dropped, so the directories above it need not be readable for
    /// the server's user.
    #[arg(short, long, value_name = "DIR", default_value = ".", help_heading = FILES)]
    #[arg(value_hint = ValueHint::DirPath)]
    root: PathBuf,

    /// Accept files from clients and throw them away; for testing clients
    ///
    /// Without it, writing is refused with code 2.
    #[arg(long, help_heading = FILES)]
    wrq_devnull: bool,

    /// UDP port to listen on [default: 69]
    ///
    /// 0 takes a free one, and the start line in the log names it.
    #[arg(short, long, value_parser = values::port, help_heading = NETWORK)]
    port: Option<u16>,

    /// Address to listen on; can be given several times. :: includes IPv4 [default: ::]
    ///
    /// A link-local address takes its interface: "fe80::1%eth0". Without IPv6 in the kernel, the
    /// default is "0.0.0.0".
    #[arg(short, long, value_name = "IP", help_heading = NETWORK)]
    listen: Vec<ListenAddress>,

    /// Take the sockets from systemd instead
    ///
    /// Those of LISTEN_FDS: one or several, all of them UDP. The socket unit says where to listen;
    /// --port and --listen have no effect.
    #[arg(short, long, help_heading = NETWORK)]
    systemd: bool,

    /// Answer only clients in these networks; a list, can be given several times
    ///
    /// Networks are written as 192.0.2.0/24 or 2001:db8::/32. Others get no answer at all. Without
    /// this option, everyone is answered.
    #[arg(long, value_name = "NET,..", value_delimiter = ',', help_heading = NETWORK)]
    allow_net: Vec<Network>,

    /// Do not answer clients in these networks, even if allowed
    ///
    /// Written as for --allow-net. They get no answer at all, not even an error.
    #[arg(long, value_name = "NET,..", value_delimiter = ',', help_heading = NETWORK)]
    deny_net: Vec<Network>,

    /// Answer from one of these ports [default: any free one]
    ///
    /// For firewalls without TFTP support. Each transfer takes one port while it lasts, so there
    /// should be more of them than --max-connections.
    #[arg(long, value_name = "A-B", value_parser = values::port_range, help_heading = NETWORK)]
    port_range: Option<(u16, u16)>,

    /// Transfers at once, not counting clients that have not answered yet (at most 4096 more);
    /// further ones wait their turn. Each takes two file descriptors
    ///
    /// Until it is their turn, they get one window every two seconds, so that their clients do not
    /// give up. Where the limit of descriptors (RLIMIT_NOFILE) is too low for the number, it is
    /// lowered with a warning.
    #[arg(short, long, value_name = "NUM", default_value = "64")]
    #[arg(value_parser = values::count, help_heading = LIMITS)]
    max_connections: u32,

    /// Requests of one address at once; a NAT is one address
    ///
    /// Behind a NAT many clients share an address, so requests that nobody answers make room for
    /// new ones.
    #[arg(long, value_name = "NUM", default_value = "1024")]
    #[arg(value_parser = values::count, help_heading = LIMITS)]
    max_per_client: u32,

    /// Seconds before a resend, with fractions
    ///
    /// A client's own timeout option goes before it once the client has answered. One with a
    /// windowsize of 2 or more is asked earlier, after some round trips, when it falls silent.
    #[arg(short, long, value_name = "SECONDS", default_value = "3")]
    #[arg(value_parser = values::timeout, help_heading = LIMITS)]
    timeout: Duration,

    /// Resends without progress before a transfer is given up
    ///
    /// A client that has never answered gets 3 at most.
    #[arg(long, value_name = "NUM", default_value = "5")]
    #[arg(value_parser = values::retries, help_heading = LIMITS)]
    max_retries: u32,

    /// Largest block granted, in bytes (RFC 2348); also limited by the MTU
    ///
    /// The MTU is that of the route to the client, so that blocks are not cut into fragments. Where
    /// a tunnel on the way has a smaller one, name what fits: the smallest MTU less 32, or less 52
    /// for IPv6.
    #[arg(long, value_name = "BYTES", default_value = "65464")]
    #[arg(value_parser = values::blksize, help_heading = LIMITS)]
    max_blksize: u16,

    /// Largest window granted, in blocks (RFC 7440)
    ///
    /// A client gets what it asks up to this. Lower it for firmware that loses blocks in large
    /// windows.
    #[arg(long, value_name = "BLOCKS", default_value = "64")]
    #[arg(value_parser = values::windowsize, help_heading = LIMITS)]
    max_windowsize: u16,

    /// Seconds for transfers to finish after SIGTERM
    ///
    /// What still runs then is cut off. A second SIGTERM ends at once.
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    #[arg(value_parser = values::drain_timeout, help_heading = LIMITS)]
    drain_timeout: Duration,

    /// Do not answer options, as before RFC 2347; for testing clients
    ///
    /// GRUB and UEFI firmware can not boot this way.
    #[arg(long, help_heading = LIMITS)]
    no_rfc2347: bool,

    /// User to become when started by root [default: r-tftpd, or nobody where that does not exist]
    ///
    /// The user's supplementary groups are kept, so that it can be given access to files by group.
    /// Not for a start by anybody else than root, nor with User= in a unit.
    #[arg(long, value_name = "NAME", help_heading = SECURITY, value_hint = ValueHint::Username)]
    user: Option<String>,

    /// Refuse to start without seccomp and Landlock, or use what the kernel has
    ///
    /// With either, the start line in the log names what is in force.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "strict")]
    #[arg(help_heading = SECURITY)]
    sandbox: SandboxLevel,

    #[command(flatten)]
    proxy: Proxy,

    /// What to do instead of serving: try the sandbox with the other options given
    ///
    /// It listens on free ports of loopback, so that it can be run beside the service; where to
    /// listen and whom to answer have no effect.
    #[arg(value_enum, value_name = "COMMAND", help_heading = SELF_TEST)]
    command: Option<Command>,

    /// Print what came of it as JSON; with self-test only
    ///
    /// One object: what is in force, what is missing, and every action with what was expected and
    /// what came of it.
    #[arg(long, requires = "command", help_heading = SELF_TEST)]
    pub(super) json: bool,

    /// Layout of log records; default is compact (no timestamp) under systemd, full otherwise
    ///
    /// Records go to standard error, one line each.
    #[arg(
        short = 'L',
        long,
        value_enum,
        value_name = "FMT",
        default_value = "default"
    )]
    #[arg(help_heading = OTHER)]
    log_format: LogChoice,

    /// Print a summary with -h, all that there is to say with --help
    #[arg(short, long, action = ArgAction::Help, help_heading = OTHER)]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = OTHER)]
    version: Option<bool>,
}

const FILES: &str = "Files";
const NETWORK: &str = "Network";
const LIMITS: &str = "Limits";
const SECURITY: &str = "Security";
const SELF_TEST: &str = "Self-test";
const OTHER: &str = "Other";

/// What to do instead of serving.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Command {
    /// Has each process try what it must not be able to do, and prints what came of it
    SelfTest,
}

/// `--sandbox`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SandboxLevel {
    /// No start without seccomp, no_new_privs and Landlock of any version; the error says what is
    /// missing
    Strict,
    /// What the kernel has; the start line names what is missing
    BestEffort,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogChoice {
    /// Compact under systemd, full otherwise
    Default,
    /// Without a timestamp: the journal has its own
    Compact,
    /// With a timestamp
    Full,
    /// One JSON object a line
    Json,
}

impl Arguments {
    /// Whether to try the sandbox instead of serving.
    pub(super) fn is_self_test(&self) -> bool {
        self.command.is_some()
    }

    /// What they mean, and what the user should know about them. `variable` looks up the
    /// environment.
    pub(super) fn into_settings(
        self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> (Settings, Vec<String>) {
        let warnings = self.warnings();
        let settings = Settings {
            listen: self.listen(),
            log: LogSettings {
                format: self.log_format.resolve(variable),
                filter: variable("RUST_LOG").unwrap_or_default(),
                priorities: log::is_journal(variable(JOURNAL_STREAM).as_deref()),
            },
            root: self.root,
            user: self.user,
            sandbox: match self.sandbox {
                SandboxLevel::Strict => Sandbox::Strict,
                SandboxLevel::BestEffort => Sandbox::BestEffort,
            },
            allow: self.allow_net,
            deny: self.deny_net,
            max_per_client: self.max_per_client,
            port_range: self.port_range,
            max_connections: self.max_connections,
            timeout: self.timeout,
            max_retries: self.max_retries,
            max_blksize: self.max_blksize,
            max_windowsize: self.max_windowsize,
            options: !self.no_rfc2347,
            wrq_devnull: self.wrq_devnull,
            drain_timeout: self.drain_timeout,
            fallback_directory: self.proxy.fallback_directory(),
            proxy: self.proxy.settings(variable),
        };
        (settings, warnings)
    }

    fn listen(&self) -> Listen {
        if self.systemd {
            return Listen::Systemd;
        }
        let all = || vec![ListenAddress::ALL];
        let addresses = if self.listen.is_empty() {
            all()
        } else {
            self.listen.clone()
        };
        Listen::Addresses {
            addresses,
            port: self.port.unwrap_or(TFTP_PORT),
        }
    }

    /// Options without effect are named: who gave them expects something.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.systemd && (self.port.is_some() || !self.listen.is_empty()) {
            warnings.push(
                "--port and --listen have no effect with --systemd: the socket unit says where to \
                 listen"
                    .into(),
            );
        }
        warnings.extend(self.proxy.warning());
        warnings
    }
}

impl LogChoice {
    /// systemd sets both variables for a service; its journal has timestamps of its own.
    fn resolve(self, variable: &dyn Fn(&str) -> Option<String>) -> LogFormat {
        let systemd = || {
            [JOURNAL_STREAM, "INVOCATION_ID"]
                .into_iter()
                .find_map(variable)
        };
        match self {
            Self::Default if systemd().is_some() => LogFormat::Compact,
            Self::Default | Self::Full => LogFormat::Full,
            Self::Compact => LogFormat::Compact,
            Self::Json => LogFormat::Json,
        }
    }
}
