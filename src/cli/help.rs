//! What stands below the options in `-h` and `--help`; at most 100 columns.

/// For `-h`: where to go on.
pub(super) const SHORT: &str = "\
Try it out: r-tftpd --root . --port 6969, and fetch with curl -O tftp://localhost:6969/FILE
See what the sandbox holds here: r-tftpd self-test
--help says more on each option, with examples, signals and environment; r-tftpd(8) what the log
says and what to do then.";

/// For `--help`: examples, environment and signals.
pub(super) const LONG: &str = "\
Examples:
  r-tftpd --root /srv/tftp
          Serve /srv/tftp on port 69, IPv6 and IPv4; as root, who becomes the user r-tftpd.
  r-tftpd --root . --port 6969
          Try it out as an ordinary user; fetch with: curl -O tftp://localhost:6969/FILE
  r-tftpd --root /srv/tftp --listen 192.0.2.1 --listen fe80::1%eth0
          Listen on two addresses only.
  r-tftpd --root /srv/tftp --allow-net 192.0.2.0/24,2001:db8::/32 --deny-net 192.0.2.66
          Answer only clients of these networks, but for one.
  r-tftpd --root /srv/tftp --port-range 50000-50999
          Answer from these ports, for a packet filter without TFTP support.
  r-tftpd --root /srv/tftp --fallback http://boot.example.org/images/
          Fetch what is not below /srv/tftp. A symlink there can name a URL, too:
          ln -s https+nocache://images.example.org/ /srv/tftp/images
  r-tftpd self-test --root /srv/tftp
          See what the sandbox holds, on this machine and with these options; --json for scripts.

Environment:
  RUST_LOG      What to log: error, warn, info (default), debug, trace or off, also by module, such
                as info,r_tftpd::request=debug
  LISTEN_FDS, LISTEN_PID
                Sockets from systemd, with --systemd
  CACHE_DIRECTORY, TMPDIR
                Where cache files go without --cache-dir
  SSL_CERT_FILE File with certificates (PEM) to trust in place of those of the system
  JOURNAL_STREAM, INVOCATION_ID
                Set by systemd: the default log format is compact then

Signals:
  SIGTERM, SIGINT  Take no new requests, let transfers finish (--drain-timeout); again: end now
  SIGHUP           Start anew without missing a request; running transfers finish
  SIGUSR1          Log how many transfers there are, and what is in the cache
  SIGUSR2          Empty the cache

Exit status: 0 when ended by a signal, 1 when it can not start or go on, 2 for a bad command line.
Of self-test: 0 when all was as expected, 1 on a surprise or when it can not start.";
