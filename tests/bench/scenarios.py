"""What is measured: each scenario is a file, clients that read it, and what is special about them."""

from dataclasses import dataclass, field, replace

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True)
class Scenario:
    """One row of figures for each server."""

    name: str
    title: str
    size: int  # bytes of the file; 0 = it does not exist
    sessions: int = 1
    blksize: str = "1468"
    windowsize: str = "16"
    total: int | None = None  # sessions in all; None = `sessions`, 0 = without end
    limit: float = 10  # seconds
    options: tuple = ()  # more for the load generator
    per_request: bool = False  # requests/s are of interest, not MB/s
    cold: bool = False  # the file is not in the page cache
    text: bool = False  # the file consists of lines
    proxied: bool = False  # the file is behind an HTTP server
    warm_up: bool = False  # read once before it is measured
    both_cores: bool = False  # the server may use the client's core, too
    figure: str = ""  # a figure of the load generator's that is the result: "repair_ms"
    wire: dict = field(default_factory=dict)  # what goes wrong between namespaces; none = loopback
    may_be_cut: bool = False  # what is not finished in time is no failure
    servers: frozenset = field(default_factory=frozenset)  # only these; empty = all but special ones
    without: frozenset = field(default_factory=frozenset)  # these can not do it
    also: frozenset = field(default_factory=frozenset)  # special ones that make sense here

    @property
    def file(self):
        """Name of the file below the root."""
        if not self.size:
            return "no-such-file"
        return f"{'text' if self.text else 'data'}-{self.size}"

    def arguments(self):
        """For the load generator, but for the server's address and the names of the file."""
        words = [
            "--sessions", self.sessions, "--limit", self.limit,
            "--blksize", self.blksize, "--windowsize", self.windowsize,
        ]
        if self.total is not None:
            words += ["--total", self.total]
        if self.both_cores:
            words.append("--sleep")  # Else they would take from the server what they do not need.
        return [str(word) for word in (*words, *self.options)]


def rate(name, title, size, sessions, **more):
    """Always so many sessions at once, for three seconds."""
    return Scenario(name, title, size, sessions, total=0, limit=3, per_request=True, **more)


def loss(name, title, percent, windowsize, options, size=16 * MIB):
    """A client that loses datagrams, four times, since one misfortune more or less decides a lot.
    With most peers there is no hope that it finishes in time."""
    return Scenario(name, title, size, windowsize=windowsize, total=4, may_be_cut=True,
                    options=("--loss", str(percent), *options))


def wire(percent, windowsize):
    """Eight clients, always, in another namespace; each repeats itself after a second."""
    return Scenario(f"l{percent}-{windowsize}", f"{percent} % lost each way, 2 ms there and back, 1468/{windowsize}",
                    MIB, 8, windowsize=str(windowsize), total=0, limit=8, may_be_cut=True,
                    wire={"loss": percent, "delay": 1}, options=("--sleep",), without=frozenset({"bare"}))


WIDE = frozenset({"r-tftpd-wide"})
PROXIES = frozenset({"r-tftpd", "r-tftpd-0.4.0"})
QUICK = ("--silence", "20")
SILENT = ("--silence", "60000")
NO_OPTIONS = {"blksize": "512", "windowsize": "1"}

SCENARIOS = (
    Scenario("a1", "one client, no options", 64 * MIB, **NO_OPTIONS),
    Scenario("a2", "one client, 1468, lock-step", 64 * MIB, windowsize="1"),
    Scenario("a3", "one client, 1468/16", 64 * MIB),
    Scenario("a4", "one client, 1468/64", 64 * MIB, windowsize="64"),
    Scenario("a5", "one client, 8192/16", 64 * MIB, blksize="8192"),
    Scenario("b", "64 clients at once, 1468/16", 16 * MIB, 64),
    Scenario("c1", "500 clients at once, 1468/8", MIB, 500, windowsize="8", also=WIDE),
    Scenario("c2", "2000 clients at once, 1468/8", MIB, 2000, windowsize="8", limit=20, also=WIDE),
    Scenario("c3", "10 000 clients at once, 1468/16", 256 * KIB, 10000, limit=20, also=WIDE),
    Scenario("c4", "as c3, but 64 of them at a time", 256 * KIB, 64, total=10000, limit=20),
    rate("d1", "1 KiB files, one after another", KIB, 1, windowsize="1"),
    rate("d2", "1 KiB files, 64 at once", KIB, 64, windowsize="1"),
    rate("d2-two", "as d2, server on both cores", KIB, 64, windowsize="1", both_cores=True),
    rate("d3", "1 KiB files, 512 at once", KIB, 512, windowsize="1", also=WIDE),
    rate("d4", "64 KiB files, 1468/8, 64 at once", 64 * KIB, 64, windowsize="8"),
    rate("d5", "missing file, 16 at once", 0, 16, **NO_OPTIONS),
    rate("d6", "missing file, 64 at once", 0, 64, **NO_OPTIONS),
    rate("d6-two", "as d6, server on both cores", 0, 64, both_cores=True, **NO_OPTIONS),
    loss("e1", "1 % loss, 1468/16", 1, "16", QUICK),
    loss("e2", "1 % loss, 1468/64", 1, "64", QUICK),
    loss("e3", "1 % loss, 1468/64, silent client", 1, "64", SILENT),
    loss("e4", "5 % loss, 1468/64, silent client", 5, "64", SILENT, size=4 * MIB),
    loss("e5", "1 % loss, 1468/64, ACK of every block", 1, "64", (*QUICK, "--ack-all")),
    *(wire(percent, windowsize) for percent in (1, 5, 20) for windowsize in (1, 4, 16, 64)),
    Scenario("f1", "repair of a lost window end, silent client", MIB, figure="repair_ms",
             options=("--lose-window-end", *SILENT)),
    Scenario("g1", "cold page cache, 1468/64", 64 * MIB, windowsize="64", cold=True),
    Scenario("h1", "63 clients beside a slow one, 1468/16", 8 * MIB, 64,
             options=("--slow", "1:20")),
    Scenario("i1", "mixed blksize, 64 at once, tsize", 4 * MIB, 64,
             blksize="512,1024,1428,1468,8192", options=("--tsize",)),
    Scenario("n1", "netascii, 1468/16", 16 * MIB, text=True, options=("--netascii",),
             without=frozenset({"bare"})),
    Scenario("p1", "proxied, not in the cache, 1468/64", 64 * MIB, windowsize="64", proxied=True,
             servers=PROXIES),
    Scenario("p2", "proxied, in the cache, 1468/64", 64 * MIB, windowsize="64", proxied=True,
             warm_up=True, servers=PROXIES),
    Scenario("p3", "as b, proxied, not in the cache", 16 * MIB, 64, proxied=True, servers=PROXIES),
    Scenario("p4", "as b, proxied, in the cache", 16 * MIB, 64, proxied=True, warm_up=True,
             servers=PROXIES),
)

# For the plot: a file of the same size, read by more and more clients.
PLOTTED = (1, 4, 16, 64, 256, 1024, 4096, 10000)


def plotted(sessions):
    """A point of the plot. With few clients each reads it often, so that there is enough to measure."""
    return Scenario(
        f"plot-{sessions}", f"{sessions} at once, 1 MiB, 1468/16", MIB, sessions,
        total=max(sessions, 1024), limit=15, also=WIDE,
    )


def shortened(scenario):
    """The same in a fraction of a second, to see that it works."""
    size = min(scenario.size, MIB)
    sessions = min(scenario.sessions, 32)
    total = scenario.total and min(scenario.total, 2 * sessions)
    limit = 0.3 if scenario.per_request else 2 if scenario.wire else 10
    return replace(scenario, size=size, sessions=sessions, total=total, limit=limit)
