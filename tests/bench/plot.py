"""Draws throughput and processor time against the number of sessions, as SVG."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1240, 520
PANEL_WIDTH, PANEL_HEIGHT = 410, 360
LEFT, TOP, GAP = 70, 90, 90
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"
COLOURS = {
    "r-tftpd": "#c0392b", "r-tftpd-wide": "#e67e22", "bare": "#222222", "tftpd-hpa": "#7f8c8d",
    "atftpd": "#2980b9", "dnsmasq": "#16a085", "r-tftpd-0.4.0": "#8e44ad", "rs-tftpd": "#9a7d0a",
    "async-tftp": "#d98cb3",
}
LABELS = {
    "r-tftpd": "r-tftpd, 64 places", "r-tftpd-wide": "r-tftpd, most places",
    "bare": "bare UDP_SEGMENT sender",
}


def draw(path, title, series):
    """`series[server]` is a list of (sessions, MB/s, CPU seconds per GB); the last can be None."""
    panels = (
        ("Throughput, MB/s (more is better)", [
            (name, [(n, speed) for n, speed, _ in points if speed])
            for name, points in series.items()]),
        ("Server CPU, seconds per GB (less is better)", [
            (name, [(n, cost) for n, _, cost in points if cost])
            for name, points in series.items()]),
    )
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' "
        f"viewBox='0 0 {WIDTH} {HEIGHT}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        text(LEFT, 30, "TFTP sessions at once: what they get and what they cost", 18, "start", True),
        text(LEFT, 52, title, 12, "start"),
    ]
    for index, (heading, lines) in enumerate(panels):
        parts += panel(LEFT + index * (PANEL_WIDTH + GAP), heading, lines)
    legend = LEFT + 2 * PANEL_WIDTH + GAP + 20
    for index, name in enumerate(series):
        y = TOP + 10 + index * 24
        parts.append(line([(legend, y), (legend + 24, y)], name))
        parts.append(text(legend + 32, y + 4, LABELS.get(name, name), 12, "start"))
    parts.append("</svg>")
    with open(path, "w") as file:
        file.write("\n".join(parts) + "\n")


def panel(left, heading, lines):
    """One diagram: both axes are logarithmic, since the best is many times the worst."""
    values = [value for _, points in lines for _, value in points]
    sessions = sorted({n for _, points in lines for n, _ in points})
    if not values:
        return [text(left, TOP, f"{heading}: nothing was measured", 12, "start")]
    steps = [step * 10.0 ** decade for decade in range(-6, 7) for step in (1, 2, 5)]
    low = max(step for step in steps if step <= min(values))
    high = min(step for step in steps if step > max(values))
    widest = max(math.log10(sessions[-1] / sessions[0]), 1e-9)

    def place(n, value):
        x = left + PANEL_WIDTH * math.log10(n / sessions[0]) / widest
        y = TOP + PANEL_HEIGHT * (1 - math.log10(value / low) / math.log10(high / low))
        return x, y

    parts = [text(left, TOP - 14, heading, 13, "start", True)]
    for value in (step for step in steps if low <= step <= high):
        _, y = place(sessions[0], value)
        parts.append(rule(left, y, left + PANEL_WIDTH, y))
        parts.append(text(left - 8, y + 4, f"{value:g}", 11, "end"))
    for n in sessions:
        x, _ = place(n, low)
        parts.append(rule(x, TOP, x, TOP + PANEL_HEIGHT))
        parts.append(text(x, TOP + PANEL_HEIGHT + 18, str(n), 11))
    parts.append(text(left + PANEL_WIDTH / 2, TOP + PANEL_HEIGHT + 42, "sessions at once", 12))
    for name, points in lines:
        places = [place(n, value) for n, value in points]
        parts.append(line(places, name))
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour(name)}'/>"
                  for x, y in places]
    return parts


def colour(name):
    """The same for a server in both panels."""
    return COLOURS.get(name, "#555555")


def line(points, name):
    """Ours is thick, the yardstick dashed."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    width = 3.5 if name.startswith("r-tftpd") and "0.4" not in name else 1.8
    dashes = " stroke-dasharray='6 4'" if name == "bare" else ""
    return (f"<polyline points='{path}' fill='none' stroke='{colour(name)}' "
            f"stroke-width='{width}' stroke-linejoin='round'{dashes}/>")


def rule(x1, y1, x2, y2):
    """A line of the grid."""
    return (f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
            f"stroke='#dddddd' stroke-width='1'/>")


def text(x, y, words, size, anchor="middle", bold=False):
    """Words."""
    weight = " font-weight='bold'" if bold else ""
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' {FONT}"
            f"{weight} fill='#222222'>{escape(words)}</text>")
