"""Small panels of lines on logarithmic axes, as SVG: a panel for each axis and quantity, a line for each command."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, GAP = 250, 190, 52, 34, 22
COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777",
    "#000000", "#994455", "#004488", "#997700", "#6699cc", "#ee99aa", "#44bb99", "#bbcc33",
)  # fmt: skip
Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def figure(panels: Mapping[str, Lines], columns: int) -> str:
    """Return the panels, named by what is on their axes, with one legend below."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    rows = -(-len(panels) // columns)
    across, down = WIDTH + LEFT + GAP, HEIGHT + TOP + GAP
    parts = [
        panel(n, ls, colour, i % columns * across, i // columns * down) for i, (n, ls) in enumerate(panels.items())
    ]
    for i, name in enumerate(names):
        x, y = LEFT + i % 8 * 115, rows * down + 14 + i // 8 * 16
        parts.append(f'<path d="M{x} {y - 4}h16" stroke="{colour[name]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 20}" y="{y}">{escape(name)}</text>')
    size = f"{columns * across} {rows * down + 24 + -(-len(names) // 8) * 16}"
    style = 'font-family="sans-serif" font-size="11" fill="none"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {style}><rect width="100%" height="100%" ' + (
        'fill="white"/><g stroke-linejoin="round">'
        + "".join(parts).replace("<text", '<text fill="#222"')
        + "</g></svg>\n"
    )


def panel(name: str, lines: Lines, colour: Mapping[str, str], x0: float, y0: float) -> str:
    """Return one panel; a point that is not positive has no place on it."""
    points = {n: [(x, y) for x, y in zip(*line, strict=True) if x > 0 and y > 0] for n, line in lines.items()}
    xs, ys = ([p[i] for line in points.values() for p in line] or [1.0] for i in (0, 1))
    wide, high = scale(xs, x0 + LEFT, WIDTH), scale(ys, y0 + TOP + HEIGHT, -HEIGHT)
    found = [f'<text x="{x0 + LEFT}" y="{y0 + TOP - 10}" font-weight="bold">{escape(name)}</text>']
    found.append(f'<rect x="{x0 + LEFT}" y="{y0 + TOP}" width="{WIDTH}" height="{HEIGHT}" stroke="#999"/>')
    bottom = y0 + TOP + HEIGHT + 13
    found += [f'<text x="{wide(x):.1f}" y="{bottom}" text-anchor="middle">{x:g}</text>' for x in sorted(set(xs))]
    for power in range(math.ceil(math.log10(min(ys))), math.floor(math.log10(max(ys))) + 1):
        y = high(10.0**power)
        found.append(f'<path d="M{x0 + LEFT} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        found.append(f'<text x="{x0 + LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for n, line in points.items():
        path = "L".join(f"{wide(x):.1f} {high(y):.1f}" for x, y in line)
        if path:
            found.append(f'<path d="M{path}" stroke="{colour[n]}" stroke-width="1.6"><title>{escape(n)}</title></path>')
    return "".join(found)


def scale(values: Sequence[float], start: float, length: float):  # type: ignore[no-untyped-def]
    """Return the function from a value to its place on a logarithmic axis."""
    low, high = math.log(min(values)), math.log(max(values))
    span = (high - low) or 1.0
    return lambda value: start + length * (0.04 + 0.92 * (math.log(value) - low) / span)
