"""The course of a training as a picture: loss, and what the evaluations found, over the steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Points = list[tuple[int, float]]

_WIDTH, _HEIGHT, _EDGE = 720, 220, 48
_DRAWN = 500
"""Points of a line, at most."""


def draw(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write an SVG of the lines of a log (see `metrics_log`): the loss above, Recall@1 below."""
    losses: Points = []
    means: Points = []
    for line in lines:
        for name, points in (("loss", losses), ("mean", means)):
            if line.get(name) is not None:
                points.append((int(line["step"]), float(line[name])))
    last = max((step for step, _ in losses + means), default=0)
    panels = [
        _panel("loss", _thinned(losses), last=last, top=0),
        _panel("Recall@1, mean of the languages", means, last=last, top=_HEIGHT),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {2 * _HEIGHT}" '
        'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n'
    )
    draft = path.with_suffix(".svg.draft")
    draft.write_text(head + "".join(panels) + "</svg>\n", encoding="utf-8")
    draft.rename(path)


def _thinned(points: Points) -> Points:
    """The means of as many neighbours as make `_DRAWN` points or fewer."""
    each = -(-len(points) // _DRAWN) or 1
    groups = [points[at : at + each] for at in range(0, len(points), each)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _panel(title: str, points: Points, *, last: int, top: int) -> str:
    values = [value for _, value in points]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    spread = (high - low) or 1.0
    left, right = _EDGE, _WIDTH - _EDGE // 2
    above, below = top + _EDGE // 2, top + _HEIGHT - _EDGE // 2
    at = [
        (
            left + (right - left) * step / max(last, 1),
            below - (below - above) * (value - low) / spread,
        )
        for step, value in points
    ]
    return (
        f'<path d="M{left} {above}V{below}H{right}" fill="none" stroke="#999"/>\n'
        f'<text x="{left}" y="{above - 8}">{title}</text>\n'
        f'<text x="{left - 4}" y="{above + 4}" text-anchor="end">{high:.4g}</text>\n'
        f'<text x="{left - 4}" y="{below}" text-anchor="end">{low:.4g}</text>\n'
        f'<text x="{right}" y="{below + 16}" text-anchor="end">step {last:,}</text>\n' + _line(at)
    )


def _line(points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    spots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.5" fill="#06c"/>' for x, y in points)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="#06c"/>{spots}\n'
