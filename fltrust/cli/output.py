"""What the command prints: tables for people, one JSON document with `--json`.

Data goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from fltrust.clock import to_rfc3339
from fltrust.identity import TrustDomain

_OBEYED = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but the tab, marks that turn the direction of text, and halves of surrogate pairs."""

_GAP = 2
"""Characters between columns."""
_WORD, _DAY, _FOLDED = 16, 12, 16
"""What is no wider reads as a word; what a time, and anything else that folds, should have at least."""

Row = Mapping[str, object]
"""Cells are text, numbers, aware times, None, and lists and mappings of these."""


_spoken_of: TrustDomain | None = None


def speak_of(domain: TrustDomain) -> None:
    """From now on a short name is one of `domain`: a guest is not mistaken for one of our own."""
    global _spoken_of  # one process, one command, one domain
    _spoken_of = domain


def print_rows(rows: Iterable[Row], *, columns: Mapping[str, str], as_json: bool, empty: str) -> None:
    """Print rows as a table of `columns` (key → heading), or all of them as a JSON array.

    One row that is wider than the terminal is printed as lines, one for each column.
    A table shows `participant/site-a` for a SPIFFE ID of the domain that is spoken of, a guest's as a whole.
    """
    found = list(rows)
    if as_json:
        print_json(found)
        return
    if not found:
        say(empty)
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    cells = [[text_of(row.get(key)) for key in columns] for row in found]
    headings = list(columns.values())
    widths = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)]
    if len(found) == 1 and sum(widths) + _GAP * (len(widths) - 1) > console.width:
        _print_record(headings, cells[0])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    times = [_is_time(row.get(key) for row in found) for key in columns]
    for heading, keep in zip(headings, _kept_whole(widths, times, room=console.width), strict=True):
        table.add_column(heading, overflow="fold", no_wrap=keep)
    for row_cells in cells:
        table.add_row(*row_cells)
    console.print(table)


def print_json(value: object, *, lines: bool = False) -> None:
    """Print one JSON document to standard output; with `lines`, on one line, at once."""
    sys.stdout.write(json.dumps(value, indent=None if lines else 2, default=_plain) + "\n")
    if lines:
        sys.stdout.flush()


def say(message: str) -> None:
    """Tell a person something, on standard error."""
    sys.stderr.write(shown(message, keep_lines=True) + "\n")


def shown(text: str, *, keep_lines: bool = False) -> str:
    """Text that may be a stranger's, such as a name in a certificate, without what a terminal obeys."""
    return _OBEYED.sub(
        lambda found: found[0] if keep_lines and found[0] == "\n" else _escaped(found[0]), text
    )


def text_of(value: object) -> str:
    """A cell as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    if isinstance(value, str):
        text = shown(value, keep_lines=True)
        head = "spiffe://" if _spoken_of is None else f"spiffe://{_spoken_of}/"
        return "/".join(text.split("/")[3:]) if text.startswith(head) else text
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {text_of(v)}" for k, v in value.items())
    if isinstance(value, Sequence):
        return ", ".join(text_of(v) for v in value)
    raise TypeError(f"no text form for {type(value).__name__}")


def _print_record(headings: Sequence[str], cells: Sequence[str]) -> None:
    width = max(map(len, headings)) + _GAP
    for heading, cell in zip(headings, cells, strict=True):
        sys.stdout.write(f"{heading:{width}}{cell}\n")


def _kept_whole(widths: Sequence[int], times: Sequence[bool], *, room: int) -> list[bool]:
    """Which columns do not fold: the first, which is there to be copied; then words; then times."""
    first = [number == 0 for number in range(len(widths))]
    words = [is_first or width <= _WORD for is_first, width in zip(first, widths, strict=True)]
    for whole in ([a or b for a, b in zip(words, times, strict=True)], words):
        least = sum(
            width if keep else min(width, _DAY if is_time else _FOLDED)
            for width, keep, is_time in zip(widths, whole, times, strict=True)
        )
        if least + _GAP * (len(widths) - 1) <= room:
            return whole
    return first


def _is_time(values: Iterable[object]) -> bool:
    return all(value is None or isinstance(value, datetime) for value in values)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return to_rfc3339(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
