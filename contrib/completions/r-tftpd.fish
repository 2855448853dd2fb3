# Made by `cargo run -p r-tftpd-generate` from the command line of r-tftpd.
complete -c r-tftpd -s r -l root -d 'Directory to serve; nothing outside of it can be read' -r -f -a "(__fish_complete_directories)"
complete -c r-tftpd -s p -l port -d 'UDP port to listen on [default: 69]' -r -f
complete -c r-tftpd -s l -l listen -d 'Address to listen on; can be given several times. :: includes IPv4 [default: ::]' -r -f
complete -c r-tftpd -l allow-net -d 'Answer only clients in these networks; a list, can be given several times' -r -f
complete -c r-tftpd -l deny-net -d 'Do not answer clients in these networks, even if allowed' -r -f
complete -c r-tftpd -l port-range -d 'Answer from one of these ports [default: any free one]' -r -f
complete -c r-tftpd -s m -l max-connections -d 'Transfers at once, not counting clients that have not answered yet (at most 4096 more); further ones wait their turn. Each takes two file descriptors' -r -f
complete -c r-tftpd -l max-per-client -d 'Requests of one address at once; a NAT is one address' -r -f
complete -c r-tftpd -s t -l timeout -d 'Seconds before a resend, with fractions' -r -f
complete -c r-tftpd -l max-retries -d 'Resends without progress before a transfer is given up' -r -f
complete -c r-tftpd -l max-blksize -d 'Largest block granted, in bytes (RFC 2348); also limited by the MTU' -r -f
complete -c r-tftpd -l max-windowsize -d 'Largest window granted, in blocks (RFC 7440)' -r -f
complete -c r-tftpd -l drain-timeout -d 'Seconds for transfers to finish after SIGTERM' -r -f
complete -c r-tftpd -l user -d 'User to become when started by root [default: r-tftpd, or nobody where that does not exist]' -r -f -a "(__fish_complete_users)"
complete -c r-tftpd -l sandbox -d 'Refuse to start without seccomp and Landlock, or use what the kernel has' -r -f -a "strict\t'No start without seccomp, no_new_privs and Landlock of any version; the error says what is missing'
best-effort\t'What the kernel has; the start line names what is missing'"
complete -c r-tftpd -s f -l fallback -d 'Where to look for what is not below the root: a URL to append names to, with modifiers as in links, or a directory' -r -f -a "(__fish_complete_directories)"
complete -c r-tftpd -s C -l cache-dir -d 'Directory for cache files; they have no names. Neither within --root nor around it [default: CACHE_DIRECTORY, TMPDIR, /var/tmp or /tmp]' -r -f -a "(__fish_complete_directories)"
complete -c r-tftpd -l cache-size -d 'Size of the cache in bytes; K, M, G and T are understood' -r -f
complete -c r-tftpd -l cache-max-object -d 'Largest object that is relayed, in bytes [default: half of --cache-size]' -r -f
complete -c r-tftpd -l cache-entries -d 'Objects in the cache. Each takes a file descriptor' -r -f
complete -c r-tftpd -l stale-if-error -d 'Seconds for which what has become stale is served while its server fails' -r -f
complete -c r-tftpd -l proxy-ports -d 'Ports that links may lead to: numbers and ranges such as 80,443,8000-8100, or any; that of --fallback always may [default: 80,443]' -r -f
complete -c r-tftpd -l proxy-timeout -d 'Seconds in which a server must answer, and send each next part' -r -f
complete -c r-tftpd -l ca-file -d 'File with certificates (PEM) to trust beside those of the system; can be given several times' -r -F
complete -c r-tftpd -s L -l log-format -d 'Layout of log records; default is compact (no timestamp) under systemd, full otherwise' -r -f -a "default\t'Compact under systemd, full otherwise'
compact\t'Without a timestamp: the journal has its own'
full\t'With a timestamp'
json\t'One JSON object a line'"
complete -c r-tftpd -l wrq-devnull -d 'Accept files from clients and throw them away; for testing clients'
complete -c r-tftpd -s s -l systemd -d 'Take the sockets from systemd instead'
complete -c r-tftpd -l no-rfc2347 -d 'Do not answer options, as before RFC 2347; for testing clients'
complete -c r-tftpd -l no-tftp-headers -d 'Do not tell servers which client asks for what (X-TFTP-Client, -File and -Mode)'
complete -c r-tftpd -l disable-proxy -d 'Never ask other servers; links that name URLs are denied'
complete -c r-tftpd -l json -d 'Print what came of it as JSON; with self-test only'
complete -c r-tftpd -s h -l help -d 'Print a summary with -h, all that there is to say with --help'
complete -c r-tftpd -s V -l version -d 'Print the version'
