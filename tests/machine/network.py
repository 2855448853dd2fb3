"""A network between two namespaces: MTU 1500 and less, link-local addresses, broadcasts. Needs root."""

import json
import subprocess

from support import Daemon, directory, get, main, namespaces, pattern, run, sha256, test, write

CONTENTS = pattern(3_000_000)
LOSS = """
table inet loss {
    chain out { type filter hook output priority 0; udp sport != 69 numgen random mod 100 == 0 drop; }
}
"""


class Network:
    """The daemon in one namespace, clients in the other."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __enter__(self):
        self.namespaces = namespaces()
        self.server, self.client, self.name = self.namespaces.__enter__()
        self.directory = directory()
        root = self.directory.__enter__()
        write(f"{root}/file", CONTENTS)
        self.daemon = Daemon(root, *self.arguments, prefix=self.server).__enter__()
        return self

    def __exit__(self, *what):
        self.daemon.__exit__(*what)
        self.directory.__exit__(*what)
        self.namespaces.__exit__(*what)

    def get(self, host, *options):
        """The file, which must arrive intact."""
        answer = get(host, 69, "file", *options, prefix=self.client)
        assert answer["sha256"] == sha256(CONTENTS), answer
        return answer


@test
def windows_cross_a_device_with_an_mtu_of_1500():
    with Network() as network:
        for host in ("10.99.0.1", "fd99::1"):
            for windowsize in (1, 4, 16, 64):
                network.get(host, "blksize=1428", f"windowsize={windowsize}")
        blocks = -(-len(CONTENTS) // 1428)
        record = network.daemon.request("file")
        assert record["blocks"] == blocks, record


@test
def a_blksize_is_granted_so_that_a_block_fits_the_mtu():
    with Network() as network:
        for host, largest in (("10.99.0.1", 1500 - 20 - 8 - 4), ("fd99::1", 1500 - 40 - 8 - 4)):
            answer = network.get(host, "blksize=65464", "windowsize=16")
            assert answer["granted"]["blksize"] == str(largest), answer
        run(["ip", "-n", network.name, "link", "set", "s0", "mtu", "1400"])
        answer = network.get("10.99.0.1", "blksize=1468", "windowsize=16")
        assert answer["granted"]["blksize"] == str(1400 - 32), answer


@test
def a_route_whose_mtu_falls_during_a_transfer_does_not_stop_it():
    for host, change in (
        ("10.99.0.1", "ip -n {} route add 10.99.0.2/32 dev s0 mtu 900"),
        ("fd99::1", "ip -n {} -6 route add fd99::2/128 dev s0 mtu 1280"),
    ):
        for windowsize in (1, 8, 64):
            with Network() as network:
                options = [f"windowsize={windowsize}", "blksize=1428", "at=500"]
                network.get(host, *options, f"run={change.format(network.name)}")
                assert network.daemon.request("file")["message"] == "complete"


@test
def a_link_local_client_is_answered_over_its_own_link():
    with Network() as network:
        shown = json.loads(run(["ip", "-n", network.name, "-j", "-6", "address", "show", "dev", "s0"]))
        addresses = [one["local"] for one in shown[0]["addr_info"] if one["scope"] == "link"]
        answer = network.get(f"{addresses[0]}%c0", "blksize=1428", "windowsize=8")
        assert answer["tid"].split("%")[0] == addresses[0], answer


@test
def the_answer_comes_from_the_address_that_was_asked():
    with Network() as network:
        for host in ("10.99.0.5", "10.99.0.1", "fd99::1"):
            assert network.get(host, "blksize=1428", "windowsize=8")["tid"] == host


@test
def broadcasts_and_multicasts_are_ignored():
    with Network() as network:
        for address in ("10.99.0.255", "255.255.255.255", "224.0.0.1", "ff02::1%c0"):
            route = [*network.client, "ip", "route", "replace"]
            run([*route, "default", "via", "10.99.0.1"])
            host = "fd99::1" if ":" in address else "10.99.0.1"
            answer = get(host, 69, "file", f"ask={address}", "silence=0.2", prefix=network.client)
            assert answer["silent"], (address, answer)
        network.get("10.99.0.1")


@test
def loss_delays_a_transfer_and_does_not_break_it():
    with Network("--timeout", "0.3") as network:
        run([*network.server, "nft", LOSS])
        network.get("10.99.0.1", "blksize=1428", "windowsize=16", "silence=0.3")


@test
def without_ipv6_it_serves_ipv4_and_says_so():
    with namespaces() as (server, client, name), directory() as root:
        write(f"{root}/file", CONTENTS)
        run([*server, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
        with Daemon(root, prefix=server) as daemon:
            answer = get("10.99.0.1", 69, "file", "blksize=1428", "windowsize=8", prefix=client)
            assert answer["sha256"] == sha256(CONTENTS), answer
            assert daemon.listen in (["0.0.0.0:69"], ["[::]:69"]), daemon.listen


main()
