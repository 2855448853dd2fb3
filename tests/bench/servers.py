"""Our server, its peers and the yardstick: how each is started."""

import os
from dataclasses import dataclass, replace

HOST = "127.0.0.1"
ORIGIN_PORT = 6980


@dataclass(frozen=True)
class Server:
    """A command that serves the current directory, and the port it does so on."""

    name: str
    command: tuple
    port: int = 6900
    host: str = HOST
    special: bool = False  # only in the scenarios that ask for it
    ours: bool = False

    def is_installed(self):
        """Whether its program is there."""
        return os.access(self.command[0], os.X_OK)


def all_servers(programs, peers, root, cache, host=HOST):
    """In the order of the tables, each listening on this address."""
    debian = lambda name: os.path.join(peers, "debian/usr/sbin", name)
    crate = lambda name: os.path.join(peers, name, "bin")
    our = (f"{programs}/r-tftpd", "--root", root, "--listen", host, "--port", "6900",
           "--cache-dir", cache, "--proxy-ports", str(ORIGIN_PORT), "--log-format", "compact")
    servers = (
        # As it comes; clients have addresses of their own.
        Server("r-tftpd", our, ours=True),
        # It lowers the number itself to what the limit of descriptors allows.
        Server("r-tftpd-wide", (*our, "--max-connections", "10000"), special=True, ours=True),
        Server("bare", (f"{programs}/r-tftpd-bare", f"{host}:6900")),
        Server("tftpd-hpa", (debian("in.tftpd"), "--foreground", "--address", f"{host}:6900",
                             "--secure", "--user", "nobody", root)),
        Server("atftpd", (debian("atftpd"), "--daemon", "--no-fork", "--port", "6900",
                          "--bind-address", host, "--maxthread", "20000", "--user", "nobody",
                          "--group", "nogroup", "--logfile", "/dev/null", "--verbose=0", root)),
        # It knows no other port.
        Server("dnsmasq", (debian("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null",
                           "--port=0", "--enable-tftp", f"--tftp-root={root}", "--tftp-max=20000",
                           "--quiet-tftp", f"--listen-address={host}", "--bind-interfaces",
                           "--user=nobody", "--pid-file"), port=69),
        Server("r-tftpd-0.4.0", (f"{crate('r-tftpd-0.4.0')}/r-tftpd", "--listen", host, "--port",
                                 "6900", "--max-connections", "20000", "--cache-dir", cache)),
        Server("rs-tftpd", (f"{crate('rs-tftpd')}/tftpd", "-i", host, "-p", "6900", "-d", root,
                            "-r")),
        Server("async-tftp", (f"{crate('async-tftp')}/async-tftp-server", f"{host}:6900")),
    )
    return tuple(replace(server, host=host) for server in servers)
