"""Files of bulk: lines of CSV or JSON in, results as JSON lines out."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fltrust.enrollment.bulk import BulkAnswer, BulkItem
from fltrust.enrollment.requests import Assignment
from fltrust.errors import FltrustError, Malformed, NotFound
from fltrust.files import read_bounded
from fltrust.identity import Name, Role
from fltrust.strictbase64 import from_base64, to_base64

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE = 64 * 2**20
MAX_LINES = 100_000
_FIELDS = {"role", "name", "csr", "node_key", "node_key_proof", "proof", "dns_names", "replace"}
_YES = {"": False, "no": False, "false": False, "yes": True, "true": True}


@dataclass(frozen=True, slots=True)
class Line:
    """One line, parsed as far as its fields; `number` counts from 1, headings included."""

    number: int
    fields: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """What results are known by: the name, and the request that was sent for it."""
        return (
            f"{self.fields.get('role') or Role.PARTICIPANT}/{self.fields.get('name', '')}",
            self.fields.get("csr", ""),
        )


def read_lines(source: Path) -> list[Line]:
    """Read CSV with headings, or JSON lines (``.jsonl``, ``.json``); `Malformed` names the line."""
    data = read_bounded(source, limit=MAX_FILE)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Malformed(f"expected {source} in UTF-8") from None
    lines = list(_json_lines(text) if source.suffix in (".jsonl", ".json") else _csv_lines(text))
    if not lines or len(lines) > MAX_LINES:
        raise Malformed(f"expected 1 to {MAX_LINES:,} lines in {source}, got {len(lines):,}")
    for line in lines:
        if unknown := set(line.fields) - _FIELDS:
            raise Malformed(f"expected no field {min(unknown)[:40]!r} in line {line.number} of {source}")
    return lines


def to_assignment(line: Line) -> Assignment:
    """Who the line is about."""
    try:
        role = line.fields.get("role") or Role.PARTICIPANT.value
        if role not in set(Role):
            raise Malformed(f"expected a role of {', '.join(Role)}, got {role[:40]!r}")
        replace = line.fields.get("replace", "").lower()
        if replace not in _YES:
            raise Malformed(f"expected yes or no for replace, got {replace[:40]!r}")
        return Assignment(
            role=Role(role),
            name=Name(line.fields.get("name", "")),
            dns_names=tuple(line.fields.get("dns_names", "").split()),
            replace=_YES[replace],
        )
    except FltrustError as error:
        raise Malformed(f"line {line.number}: {error.message}", hint=error.hint) from None


def to_item(line: Line) -> BulkItem:
    """The request of a line; its bytes are base64."""

    def field(name: str) -> bytes | None:
        text = line.fields.get(name, "")
        return from_base64(text, f"{name} in line {line.number}") if text else None

    csr = field("csr")
    if csr is None:
        raise Malformed(f"expected a csr in line {line.number}, got none")
    return BulkItem(
        who=to_assignment(line),
        csr_der=csr,
        node_key=field("node_key"),
        node_key_proof=field("node_key_proof"),
        proof=field("proof"),
    )


def done_in(results: Path) -> set[tuple[str, str]]:
    """What a results file says is done: certificates. Refused and waiting lines are sent again."""
    if not results.exists():
        return set()
    done = set()
    for number, text in enumerate(read_bounded(results, limit=8 * MAX_FILE).splitlines(), 1):
        try:
            found = json.loads(text)
        except ValueError:
            continue  # the line that was being written when the machine stopped
        if not isinstance(found, dict) or "name" not in found:
            raise Malformed(f"expected results of bulk in line {number} of {results}, got something else")
        if found.get("certificate"):
            done.add((str(found["name"]), str(found.get("csr", ""))))
    return done


def append_results(results: Path, part: Sequence[Line], answer: BulkAnswer) -> None:
    """Add what became of each line of a part; durable when it returns."""
    issuers = [to_base64(der) for der in answer.issuers]
    lines = []
    for line, result in zip(part, answer.results, strict=True):
        found: dict[str, object] = {"name": line.key[0], "csr": line.key[1]}
        if result.certificate is not None:
            found |= {"certificate": to_base64(result.certificate), "issuers": issuers}
        elif result.request_id is not None:
            found["waiting"] = result.request_id
        elif result.refused is not None:
            found["refused"] = result.refused.reason
            found["message"] = result.refused.message
        lines.append(json.dumps(found))
    append_lines(results, lines)


def append_lines(target: Path, lines: Iterable[str]) -> None:
    """Add lines to a file that is its owner's alone (0600); durable when it returns."""
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with io.FileIO(handle, "w") as file:
        data = "".join(f"{line}\n" for line in lines).encode()
        while data:
            data = data[file.write(data) :]
        os.fsync(handle)


@dataclass(slots=True)
class Summary:
    """How many came out how."""

    before: int
    issued: int = 0
    waiting: int = 0
    refused: int = 0

    def count(self, answer: BulkAnswer) -> None:
        for result in answer.results:
            if result.certificate is not None:
                self.issued += 1
            elif result.request_id is not None:
                self.waiting += 1
            else:
                self.refused += 1

    def to_json(self) -> dict[str, int]:
        return {
            "issued": self.issued,
            "waiting": self.waiting,
            "refused": self.refused,
            "before": self.before,
        }

    def words(self, results: Path) -> str:
        text = f"{self.issued:,} issued"
        for count, what in (
            (self.before, "done before"),
            (self.waiting, "wait for other operators"),
            (self.refused, "refused"),
        ):
            text += f", {count:,} {what}" if count else ""
        return f"{text}. Results in {results}."


def _json_lines(text: str) -> Iterable[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise Malformed(f"expected JSON in line {number}") from None
        if not isinstance(found, dict) or not all(isinstance(k, str) for k in found):
            raise Malformed(f"expected an object in line {number}")
        yield Line(number, {key: _as_text(value, number) for key, value in found.items()})


def _as_text(value: object, number: int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"expected text, lists of text, true and false in line {number}")
    return value


def _csv_lines(text: str) -> Iterable[Line]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        headings = [heading.strip() for heading in next(reader, [])]
        if len(set(headings)) != len(headings):
            raise Malformed("expected each heading once in line 1")
        for row in reader:
            if not row:
                continue
            if len(row) != len(headings):
                raise Malformed(f"expected {len(headings)} fields in line {reader.line_num}, got {len(row)}")
            yield Line(reader.line_num, {k: v.strip() for k, v in zip(headings, row, strict=True)})
    except csv.Error as error:
        raise Malformed(f"expected CSV in line {reader.line_num}: {error}") from None


def issued_for(results: Path, csr: str) -> tuple[bytes, ...]:
    """The chain that a results file has for a request, leaf first; `NotFound` where it has none."""
    for text in read_bounded(results, limit=8 * MAX_FILE).splitlines():
        found = json.loads(text)
        if isinstance(found, dict) and found.get("csr") == csr and found.get("certificate"):
            ders = (str(found["certificate"]), *map(str, found.get("issuers", [])))
            return tuple(from_base64(der, "a certificate") for der in ders)
    raise NotFound(f"expected a certificate for this request in {results}, found none")
