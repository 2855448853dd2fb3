"""Runs our server and its peers one at a time, interleaved, and prints medians and ratios.

Started by run.sh, which builds everything and makes a network namespace; see README.md.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from xml.etree import ElementTree

import plot
import report
import targets
from measure import CLIENT_CORES, SERVER_CORES, Bench, Unusable, descriptors
from scenarios import PLOTTED, SCENARIOS, plotted, shortened
from servers import HOST, all_servers
from wire import SERVER, Loopback, Wire

# In the short form, peers show only that they are measured at all, and the wire that it carries:
# tests/machine/lossy.py says more.
SHORT_WITH_PEERS = ("a3", "d2", "l5-16")
SHORT_PLOTTED = (1, 16)


def main():
    """Measures what was asked for."""
    options = arguments()
    work = tempfile.mkdtemp(prefix="r-tftpd-bench-", dir=options.work)
    try:
        with contextlib.closing(Session(options, work)) as session:
            code = session.run()
    finally:
        shutil.rmtree(work)
    sys.exit(code)


def arguments():
    """The command line; its first three words come from run.sh."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/run.sh", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compares r-tftpd with other TFTP servers and with a bare UDP_SEGMENT sender.\n"
        "Builds everything, measures in a network namespace of its own; needs root.\n"
        "How to read the tables: tests/bench/README.md.",
        epilog="scenarios:\n"
        + "\n".join(f"  {one.name:<8} {one.title}" for one in SCENARIOS)
        + "\n\nexamples:\n"
        "  tests/bench/run.sh                            everything; an hour and a half\n"
        "  tests/bench/run.sh --short                    does the benchmark itself work? 2 minutes\n"
        "  tests/bench/run.sh --scenario a4 b --rounds 5 --servers r-tftpd bare dnsmasq\n"
        "  tests/bench/run.sh --scenario l               over a wire that loses and delays\n"
        "  tests/bench/run.sh --plot                     only the plot\n\n"
        "Results also go to target/bench/results.json and target/bench/plot.svg.\n"
        "Exit status: 0 if r-tftpd finished all transfers and all peers could be measured, else 1.")
    parser.add_argument("programs", help=argparse.SUPPRESS)
    parser.add_argument("peers", help=argparse.SUPPRESS)
    parser.add_argument("results", help=argparse.SUPPRESS)
    parser.add_argument("--short", action="store_true",
                        help="every scenario with small files, peers in two of them, no crates")
    parser.add_argument("--scenario", nargs="+", metavar="NAME",
                        choices=[*{one.name[0]: 0 for one in SCENARIOS}, *(one.name for one in SCENARIOS)],
                        help="only these; a letter stands for all that begin with it")
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, default=3, metavar="N",
                        help="measurements of which the median counts (3)")
    parser.add_argument("--plot", action="store_true",
                        help="draw the plot; with --scenario in addition, else alone")
    parser.add_argument("--sleeping-clients", action="store_true",
                        help="clients wait asleep, as most do; shows what wake-ups cost")
    parser.add_argument("--work", default="/var/tmp", metavar="DIR",
                        help="where served files are made; on a disk (/var/tmp)")
    options = parser.parse_args()
    options.programs, options.peers, options.results = map(
        os.path.abspath, (options.programs, options.peers, options.results))
    if options.short:
        options.rounds = 1
    return options


class Session:
    """One run of the benchmark."""

    def __init__(self, options, work):
        self.options = options
        self.bench = Bench(options.programs, work, ("--sleep",) if options.sleeping_clients else ())
        self.passed, self.failed = 0, 0
        self.trouble = set()  # peers that could not be measured
        self.measured = {}
        self.results = []
        self.wire = None  # made when a scenario needs it
        everything = {
            host: all_servers(options.programs, options.peers, self.bench.root, self.bench.cache, host)
            for host in (HOST, SERVER)
        }
        known = [server.name for server in everything[HOST]]
        for name in options.servers or ():
            if name not in known:
                raise SystemExit(f"unknown server {name}: there are {' '.join(known)}")
        self.servers = {
            host: [s for s in servers if not options.servers or s.name in options.servers]
            for host, servers in everything.items()
        }

    def close(self):
        """The namespaces go."""
        if self.wire:
            self.wire.close()

    def run(self):
        """Everything, and how it went as an exit status."""
        options = self.options
        self.describe_machine()
        whole = not (options.scenario or options.plot)
        for scenario in SCENARIOS:
            if whole or {scenario.name, scenario.name[0]} & set(options.scenario or ()):
                self.run_scenario(scenario)
        if whole or options.plot:
            self.run_plot()
        if reached := list(targets.lines(self.measured)):
            if not options.short:
                print("\ntargets, as ratios of this run:\n" + "\n".join(reached))
        os.makedirs(options.results, exist_ok=True)
        with open(os.path.join(options.results, "results.json"), "w") as file:
            json.dump({"machine": self.machine, "scenarios": self.results}, file, indent=1)
        if self.trouble:
            print(f"\nnot measured in some scenario: {', '.join(sorted(self.trouble))}")
        print(f"\n{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or self.trouble else 0

    def describe_machine(self):
        """What figures depend on."""
        load = " ".join(f"{value:.2f}" for value in os.getloadavg())
        self.machine = {
            "kernel": platform.release(), "processor": processor(), "cores": os.cpu_count(),
            "load": load, "files on": filesystem(self.bench.work), "descriptors": descriptors(), "rounds": self.options.rounds,
        }
        print("; ".join(f"{key}: {value}" for key, value in self.machine.items()))
        print(f"servers on core {min(SERVER_CORES)}, clients on core {min(CLIENT_CORES)}, loopback",
              flush=True)

    def chosen(self, scenario):
        """The servers that take part in a scenario."""
        for server in self.servers[SERVER if scenario.wire else HOST]:
            if scenario.servers and server.name not in scenario.servers:
                continue
            if server.name in scenario.without:
                continue
            if server.special and server.name not in scenario.also:
                continue
            if self.options.short and not server.ours and server.name != "bare" and (
                    scenario.name not in SHORT_WITH_PEERS or not server.is_installed()):
                continue
            yield server

    def measure(self, scenario, servers):
        """All servers in turn, as often as asked; figures and reasons why there are none."""
        rounds, missing = {}, {}
        if scenario.wire and not self.wire:
            self.wire = Wire(self.options.programs)
        self.bench.place = self.wire if scenario.wire else Loopback()
        for number in range(self.options.rounds):
            # Nobody is always the one that follows the busiest.
            for server in servers[number:] + servers[:number]:
                if server.name in missing:
                    continue
                if not server.is_installed():
                    missing[server.name] = "is not installed"
                    continue
                try:
                    result = self.bench.measure(server, scenario)
                except Unusable as reason:
                    missing[server.name] = str(reason)
                    continue
                rounds.setdefault(server.name, []).append(result)
        figures = {
            server.name: report.Figures(scenario, server, rounds[server.name])
            for server in servers if server.name in rounds and server.name not in missing
        }
        return figures, missing

    def run_scenario(self, scenario):
        """Measures it, prints its table, and judges whether ours did what it should."""
        if self.options.short:
            scenario = shortened(scenario)
        servers = list(self.chosen(scenario))
        figures, missing = self.measure(scenario, servers)
        print(report.table(scenario, figures, missing), flush=True)
        self.measured[scenario.name] = figures
        self.results.append(report.results(scenario, figures, missing))
        for server in servers:
            if server.ours:
                one = figures.get(server.name)
                complete = one is not None and one.is_complete and one.result is not None
                self.passed += complete
                self.failed += not complete
            elif server.name in missing:
                self.trouble.add(server.name)

    def run_plot(self):
        """The figures of the plot, and the plot."""
        series = {}
        rounds, self.options.rounds = self.options.rounds, 1
        for sessions in SHORT_PLOTTED if self.options.short else PLOTTED:
            scenario = plotted(sessions)
            if self.options.short:
                scenario = shortened(scenario)
            servers = list(self.chosen(scenario))
            figures, missing = self.measure(scenario, servers)
            print(report.table(scenario, figures, missing), flush=True)
            self.results.append(report.results(scenario, figures, missing))
            for name, one in figures.items():
                series.setdefault(name, []).append((sessions, one.result, one.cost))
        self.options.rounds = rounds
        os.makedirs(self.options.results, exist_ok=True)
        path = os.path.join(self.options.results, "plot.svg")
        plot.draw(path, "; ".join(f"{key}: {value}" for key, value in self.machine.items()), series)
        drawn = len(ElementTree.parse(path).getroot()) > len(series) > 0
        self.passed += drawn
        self.failed += not drawn
        print(f"\nplot: {path}")


def processor():
    """Its name."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def filesystem(path):
    """Its type; figures of a cold page cache need a disk."""
    with open("/proc/self/mounts") as file:
        mounts = [line.split() for line in file]
    found = max((words for words in mounts if path.startswith(words[1])),
                key=lambda words: len(words[1]))
    return found[2] + (" (NOT A DISK: g1 means nothing)" if found[2] in ("tmpfs", "ramfs") else "")


main()
