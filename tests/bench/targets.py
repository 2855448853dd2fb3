"""What we want to reach, and how far we are. Nothing here fails a test: figures depend on the machine."""

# Servers that are not peers.
OWN = ("r-tftpd", "r-tftpd-wide", "bare")
MIB = 1 << 20


def lines(measured):
    """One line for each target whose scenarios were measured; `measured[scenario][server]`."""
    for text, names, judge in TARGETS:
        if all("r-tftpd" in measured.get(name, {}) for name in names):
            try:
                reached, figure = judge(*(measured[name] for name in names))
            except (KeyError, TypeError, ValueError):
                continue  # What it compares with was not measured.
            yield f"  {'reached' if reached else 'MISSED ':<8} {text}: {figure}"


def peers(figures, value):
    """This figure of each peer that has it."""
    found = {name: value(one) for name, one in figures.items() if name not in OWN}
    return {name: figure for name, figure in found.items() if figure}


def fastest(figures):
    """The best peer's name and result."""
    return max(peers(figures, lambda one: one.result).items(), key=lambda item: item[1])


def cheapest(figures):
    """The peer that needs the least processor time, and how much."""
    return min(peers(figures, lambda one: one.cost).items(), key=lambda item: item[1])


def times_fastest(least, server="r-tftpd"):
    """`least` times as fast as the best peer."""
    def judge(figures):
        name, result = fastest(figures)
        times = figures[server].result / result
        return times >= least, f"{times:.2f} x {name}"
    return judge


def times_bare(least):
    """`least` times as fast as the bare sender."""
    def judge(figures):
        times = figures["r-tftpd"].result / figures["bare"].result
        return times >= least, f"{times:.2f} x"
    return judge


def times_cheapest(most, server="r-tftpd"):
    """At most so many times the processor time of the cheapest peer."""
    def judge(figures):
        name, cost = cheapest(figures)
        times = figures[server].cost / cost
        return times <= most, f"{times:.3f} x {name}"
    return judge


def all_finish(server):
    """Every transfer, and no request had to be repeated."""
    def judge(figures):
        one = figures[server]
        again = max(r["requests_again"] for r in one.rounds)
        return one.is_complete and not again, (
            f"{one.finished} of {one.wanted}, {again} requests repeated")
    return judge


def small(transfers, server):
    """16 MiB and 2 KiB for each transfer."""
    def judge(figures):
        limit = 16 * MIB + transfers * 2048
        held = figures[server].private
        return held < limit, f"{held / MIB:.1f} of {limit / MIB:.1f} MiB"
    return judge


def cost_of_many(server):
    """Processor time per byte against that of 64 at a time, for the same files."""
    def judge(many, few):
        times = many[server].cost / few["r-tftpd"].cost
        return times <= 1.2, f"{times:.2f} x"
    return judge


TARGETS = (
    ("1468/64 at least 4 x the best peer", ["a4"], times_fastest(4)),
    ("1468/64 at least 0.8 x the bare sender", ["a4"], times_bare(0.8)),
    ("1468/16 at least 2 x the best peer", ["a3"], times_fastest(2)),
    ("64 at once at least 6 x as fast", ["b"], times_fastest(6)),
    ("64 at once at most 1/6 of the CPU", ["b"], times_cheapest(1 / 6)),
    ("2000 at once at least 3 x as fast", ["c2"], times_fastest(3)),
    ("2000 at once, all places, at least 3 x as fast", ["c2"], times_fastest(3, "r-tftpd-wide")),
    ("2000 at once all finish, nothing lost", ["c2"], all_finish("r-tftpd")),
    ("2000 at once, all places, all finish, nothing lost", ["c2"], all_finish("r-tftpd-wide")),
    ("2000 at once, private memory", ["c2"], small(2000, "r-tftpd")),
    ("2000 at once, all places, private memory", ["c2"], small(2000, "r-tftpd-wide")),
    ("1 KiB files, 64 at once, at least 0.7 x on one core", ["d2"], times_fastest(0.7)),
    ("1 KiB files, 64 at once, at least 1 x on two", ["d2-two"], times_fastest(1)),
    ("missing files, 64 at once, at least 0.7 x on one core", ["d6"], times_fastest(0.7)),
    ("missing files, 64 at once, at least 1 x on two", ["d6-two"], times_fastest(1)),
    ("lock-step 512 within 5 % of the best peer", ["a1"], times_fastest(0.95)),
    ("lock-step 512 no dearer in CPU", ["a1"], times_cheapest(1)),
    ("lock-step 1468 within 5 % of the best peer", ["a2"], times_fastest(0.95)),
    ("lock-step 1468 no dearer in CPU", ["a2"], times_cheapest(1)),
    ("1 % loss, windowsize 64, at least 1.5 x the best peer", ["e2"], times_fastest(1.5)),
    ("1 % loss, windowsize 64, silent client, at least 1.5 x", ["e3"], times_fastest(1.5)),
    ("10 000 sessions cost at most 1.2 x as 64", ["c3", "c4"], cost_of_many("r-tftpd")),
    ("10 000 sessions, all places, cost at most 1.2 x", ["c3", "c4"], cost_of_many("r-tftpd-wide")),
)
