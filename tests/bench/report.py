"""Medians of rounds, and tables of them."""

import statistics

HEADER = (
    ("server", 15), ("result", 14), ("ours", 9), ("CPU", 14), ("ours", 9), ("p50 ms", 10),
    ("p99 ms", 10), ("MiB", 8), ("done", 12), ("", 0),
)


class Figures:
    """What one server did in one scenario: medians over the rounds."""

    def __init__(self, scenario, server, rounds):
        self.scenario, self.server, self.rounds = scenario, server.name, rounds
        self.ours = server.ours

    def of(self, value):
        """The median of a figure that is computed from a round's result; None if it has none."""
        values = [figure for figure in map(value, self.rounds) if figure is not None]
        return statistics.median(values) if values else None

    @property
    def result(self):
        """MB/s, requests/s, or ms: what the scenario is about."""
        if self.scenario.figure:
            return self.of(lambda r: r[self.scenario.figure])
        if self.scenario.per_request:
            return self.of(lambda r: r["finished"] / r["seconds"])
        return self.of(lambda r: r["bytes"] / r["seconds"] / 1e6)

    @property
    def unit(self):
        """Of the result."""
        if self.scenario.figure:
            return "ms"
        return "req/s" if self.scenario.per_request else "MB/s"

    @property
    def cost(self):
        """Seconds of the server's processor time per GB, or microseconds per request."""
        if self.scenario.figure:
            return None
        key, unit = ("finished", 1e6) if self.scenario.per_request else ("bytes", 1e9)
        return self.of(lambda r: r["cpu"] / r[key] * unit if r[key] and r["cpu"] is not None else None)

    @property
    def cost_unit(self):
        """Of the cost."""
        return "us/req" if self.scenario.per_request else "s/GB"

    def latency(self, percentile):
        """Milliseconds of finished transfers."""
        return self.of(lambda r: r[percentile] if r["finished"] else None)

    @property
    def private(self):
        """The most private memory of all processes together, in any round; bytes."""
        return max(r["private"] for r in self.rounds)

    @property
    def wanted(self):
        """Sessions that should finish; 0 = as many as can."""
        scenario = self.scenario
        waited = scenario.sessions if scenario.total is None else scenario.total
        return waited and waited - sum(int(o.split(":")[0]) for o in slow(scenario))

    @property
    def finished(self):
        """The fewest of any round."""
        return min(r["finished"] for r in self.rounds)

    @property
    def is_complete(self):
        """Everything finished, with every byte as it should be, in every round."""
        whole = all(not r["failed"] and (r["bytes"] or not self.scenario.size) for r in self.rounds)
        return whole and (self.scenario.may_be_cut or self.finished >= max(self.wanted, 1))

    @property
    def is_client_bound(self):
        """The clients never had to wait: the server may be faster than this shows."""
        return self.of(lambda r: r["waited"] / r["seconds"]) < 0.05

    @property
    def notes(self):
        """What else a reader must know."""
        total = lambda key: sum(r[key] for r in self.rounds)
        notes = []
        for kind in sorted({kind for r in self.rounds for kind in r["failed"]}):
            notes.append(f"{sum(r['failed'].get(kind, 0) for r in self.rounds)} x {kind}")
        if total("requests_again"):
            notes.append(f"{total('requests_again')} requests repeated")
        if self.is_client_bound:
            notes.append("clients at their limit")
        return ", ".join(notes)


def slow(scenario):
    """The values of --slow among a scenario's options."""
    options = scenario.options
    return [options[at + 1] for at, option in enumerate(options) if option == "--slow"]


def table(scenario, figures, missing):
    """The lines of a scenario; `figures` by server, `missing` tells why others have none."""
    lines = ["", f"{scenario.name}: {scenario.title}"]
    lines.append("  " + "".join(f"{title:<15}" if width == 15 else f"{title:>{width}}"
                                for title, width in HEADER))
    ours = next((f for f in figures.values() if f.ours), None)
    for name, one in figures.items():
        more_is_better = not scenario.figure
        lines.append("  " + "".join((
            f"{name:<15}", f"{quantity(one.result, one.unit):>14}",
            f"{ratio(ours and ours.result, one.result, more_is_better):>9}",
            f"{quantity(one.cost, one.cost_unit):>14}",
            f"{ratio(ours and ours.cost, one.cost, True):>9}",
            f"{number(one.latency('p50_ms')):>10}",
            f"{number(one.latency('p99_ms')):>10}",
            f"{one.private / (1 << 20):>8.1f}",
            f"{one.finished if not one.wanted else f'{one.finished}/{one.wanted}':>12}",
            f"  {one.notes}" if one.notes else "",
        )))
    lines += [f"  {name:<15}{reason:>14}" for name, reason in missing.items()]
    return "\n".join(lines)


def quantity(value, unit):
    """A number and its unit."""
    return "n/a" if value is None else f"{number(value)} {unit}"


def number(value):
    """Three digits or more."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def ratio(ours, theirs, ours_first):
    """How many times theirs ours is, or the other way round."""
    if not ours or not theirs:
        return "-"
    value = ours / theirs if ours_first else theirs / ours
    return f"{number(value)}x"


def results(scenario, figures, missing):
    """The same for programs, with every round."""
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "servers": {
            name: {
                "result": one.result, "unit": one.unit, "cost": one.cost,
                "cost_unit": one.cost_unit, "private": one.private, "rounds": one.rounds,
            }
            for name, one in figures.items()
        },
        "missing": missing,
    }
