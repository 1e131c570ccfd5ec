"""A lineage as a person reads it: text for the terminal, and an SVG picture that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from html import escape

from fltrust.artifacts.lineage import Lineage, LineageStep
from fltrust.artifacts.provenance import Provenance
from fltrust.identity import Digest

Taints = Mapping[Digest, bool]
"""Tensor set → whether it holds compromised updates itself; else it descends from one that does."""

_MOST_NAMES = 12
"""Updates that are named in one step; the rest are counted."""
_MOST_STEPS = 200
"""Steps that a picture shows; those in the middle of a longer lineage are counted."""

_WIDTH, _ROW, _LEFT, _TEXT = 760, 76, 28, 56
_GREEN, _RED, _AMBER, _BLUE, _INK, _FAINT = "#2e7d32", "#c62828", "#ef6c00", "#1565c0", "#212121", "#757575"


def text_tree(lineage: Lineage, *, taints: Taints | None = None) -> list[str]:
    """Lines of text, the newest step first: what it is, when it was recorded, whose updates it holds."""
    lines: list[str] = []
    for row in _rows(lineage, taints or {}):
        if isinstance(row, int):
            lines += [f"┊  {row} more steps", "┊"]
            continue
        mark = f"   {row.mark.upper()}" if row.mark else ""
        lines.append(f"{row.sign} {row.title}{mark}")
        bar = " " if row.is_last else "│"
        lines += [f"{bar}   {detail}" for detail in row.details]
        if not row.is_last:
            lines.append(bar)
    return lines


def svg(lineage: Lineage, *, taints: Taints | None = None, title: str = "Lineage") -> str:
    """A picture of the same, the newest step on top, tainted ones in red. It loads and runs nothing."""
    rows = _rows(lineage, taints or {})
    height = 64 + _ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img"',
        f'  viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(_LEFT - 12, 30, title, size=17, weight="bold"),
    ]
    first, last = 64, 64 + _ROW * (len(rows) - 1)
    if len(rows) > 1:
        parts.append(
            f'<line x1="{_LEFT}" y1="{first}" x2="{_LEFT}" y2="{last}" stroke="{_FAINT}" stroke-width="2"/>'
        )
    for number, row in enumerate(rows):
        parts += _drawn(row, y=first + _ROW * number)
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True, slots=True)
class _Row:
    """One step as it is shown."""

    title: str
    details: tuple[str, ...]
    mark: str
    sign: str
    color: str
    is_last: bool


def _rows(lineage: Lineage, taints: Taints) -> list[_Row | int]:
    """Every step as a row; a number stands for steps that are left out."""
    steps = lineage.steps
    rows: list[_Row | int] = [
        _row(step, taints.get(step.provenance.tensors), is_last=number == len(steps) - 1)
        for number, step in enumerate(steps)
    ]
    if len(rows) <= _MOST_STEPS:
        return rows
    half = _MOST_STEPS // 2
    return [*rows[:half], len(rows) - 2 * half, *rows[-half:]]


def _row(step: LineageStep, taint: bool | None, *, is_last: bool) -> _Row:
    said = step.provenance
    mark = "" if taint is None else "tainted" if taint else "tainted by descent"
    color = _BLUE if said.is_initial else _AMBER if said.is_replay else _GREEN
    return _Row(
        title=_title(said),
        details=_details(step),
        mark=mark,
        sign="✗" if mark else "○" if said.is_initial else "◇" if said.is_replay else "●",
        color=_RED if mark else color,
        is_last=is_last,
    )


def _title(said: Provenance) -> str:
    where = f"run {int(said.run_id)} · step {said.step}"
    if said.is_initial:
        return f"{where} · initial model"
    return f"{where} · round {said.round}{' · replayed' if said.is_replay else ''}"


def _details(step: LineageStep) -> tuple[str, ...]:
    said = step.provenance
    at = step.signed_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"{at} · log entry {step.log_index} · {said.tensors.hex[:16]}…"]
    if said.updates:
        named = [_update(u.public_name, u.examples) for u in said.updates[:_MOST_NAMES]]
        more = len(said.updates) - len(named)
        lines.append(f"{len(said.updates)} updates: {', '.join(named)}{f' and {more} more' if more else ''}")
    if said.tainted is not None:
        out = ", ".join(_short(name) for name in said.without[:_MOST_NAMES])
        lines.append(
            f"stands in for run {int(said.tainted.run_id)} · step {said.tainted.step}, without {out}"
        )
    if said.is_initial and said.previous is not None:
        lines.append(f"goes on from run {int(said.previous.run_id)} · step {said.previous.step}")
    return tuple(lines)


def _update(name: str, examples: str | None) -> str:
    return _short(name) if examples is None else f"{_short(name)} ({examples})"


def _short(name: str) -> str:
    """`site-a` for a SPIFFE ID, the first digits of a pseudonym."""
    return name.rpartition("/")[2] if name.startswith("spiffe://") else f"{name[:20]}…"


def _drawn(row: _Row | int, *, y: int) -> list[str]:
    if isinstance(row, int):
        return [_text(_TEXT, y + 5, f"… {row} more steps", color=_FAINT)]
    mark = (
        f'<tspan fill="{_RED}" font-weight="bold">   {escape(row.mark.upper())}</tspan>' if row.mark else ""
    )
    return [
        f'<circle cx="{_LEFT}" cy="{y}" r="9" fill="{row.color}" stroke="#ffffff" stroke-width="3"/>',
        _text(_TEXT, y + 5, row.title, weight="bold", more=mark),
        *(
            _text(_TEXT, y + 22 + 16 * number, _cut(detail), color=_FAINT, size=12)
            for number, detail in enumerate(row.details)
        ),
    ]


def _text(
    x: int, y: int, text: str, *, color: str = _INK, size: int = 13, weight: str = "normal", more: str = ""
) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{color}" font-size="{size}" font-weight="{weight}">'
        f"{escape(text)}{more}</text>"
    )


def _cut(text: str) -> str:
    """What fits the width of the picture."""
    return text if len(text) <= 112 else f"{text[:111]}…"
