"""JSON that can be read in one way only: bounded, exact fields, no duplicates, one byte form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NoReturn, TypeVar

from fltrust.clock import from_rfc3339
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest, KeyId, SpiffeId, TrustDomain

_Choice = TypeVar("_Choice", bound=StrEnum)


def encode(value: Mapping[str, object]) -> bytes:
    """The one byte form: compact, keys sorted, UTF-8 without escapes that JSON does not demand."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def decode(data: bytes, *, limit: int, what: str) -> dict[str, object]:
    """Read an object that `encode` could have written, and nothing else.

    Raises `Oversized` past `limit` bytes (before anything is parsed), else `Malformed`:
    duplicate keys, fractions, other spacing, order or escapes, not an object.
    """
    if len(data) > limit:
        raise Oversized(f"expected {what} of at most {limit} bytes, got {len(data)}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=without_duplicates,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        canonical = isinstance(value, dict) and encode(value) == data
    except (ValueError, RecursionError) as error:
        raise Malformed(f"expected {what} as JSON, got something else: {str(error)[:120]}") from None
    if not canonical:
        raise Malformed(f"expected {what} as one JSON object: compact, keys sorted, in UTF-8")
    return dict(value)


def decode_any(data: bytes, *, limit: int, what: str, values: int | None = None) -> object:
    """Read JSON that others wrote, in any spacing and order: what it says may still be read in one way only.

    Raises `Oversized` past `limit` bytes or about `values` values (before anything is parsed), else
    `Malformed`: duplicate keys, fractions, nesting that is too deep, half of a surrogate pair.
    """
    if len(data) > limit:
        raise Oversized(f"expected {what} of at most {limit} bytes, got {len(data)}")
    if values is not None and sum(map(data.count, (b",", b"[", b"{"))) > values:
        # Each becomes an object of many times its three bytes. Those inside of text count, too.
        raise Oversized(f"expected {what} of at most {values} values, got more")
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=without_duplicates,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        if b"\\u" in data:  # text that is no Unicode can only be escaped
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise Malformed(f"expected {what} as JSON, got something else: {str(error)[:120]}") from None


def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An ``object_pairs_hook`` for `json` that raises ``ValueError`` where a key stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"a number that is no integer: {text[:20]}")


class Fields:
    """Takes the fields of an object one by one, each as a type; `done` refuses what is left over.

    Every method raises `Malformed` naming the field.
    """

    __slots__ = ("_left", "_what")

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"expected {what} as an object, got {type(value).__name__}")
        self._left: dict[str, object] = dict(value)
        self._what = what

    def done(self) -> None:
        if self._left:
            raise Malformed(f"expected no other field in {self._what}, got {min(self._left)[:80]!r}")

    def any(self, name: str) -> object:
        if name not in self._left:
            raise Malformed(f"expected a field {name!r} in {self._what}, got none")
        return self._left.pop(name)

    def take(self, name: str) -> object:
        """What stands there, or None where nothing does."""
        return self._left.pop(name, None)

    def text(self, name: str, *, limit: int) -> str:
        value = self.any(name)
        if not isinstance(value, str) or len(value) > limit:
            self._fail(name, f"text of at most {limit} characters")
        return value

    def objects(self, name: str, *, limit: int) -> list[Fields]:
        value = self.any(name)
        if not isinstance(value, list) or len(value) > limit:
            self._fail(name, f"a list of at most {limit} objects")
        return [Fields(item, f"{self._what}, {name}") for item in value]

    def object(self, name: str) -> Fields:
        return Fields(self.any(name), f"{self._what}, {name}")

    def number(self, name: str) -> int:
        """A JSON integer from 0 to 2^31-1."""
        value = self.any(name)
        if type(value) is not int or not 0 <= value < 2**31:
            self._fail(name, "an integer from 0 to 2^31-1")
        return value

    def decimal(self, name: str, *, bits: int) -> int:
        """An integer as a decimal string, since JSON readers lose precision past 2^53."""
        text = self.text(name, limit=20)
        if not (text.isascii() and text.isdigit()) or str(int(text)) != text or int(text) >= 2**bits:
            self._fail(name, f"an integer of {bits} bits as a decimal string")
        return int(text)

    def time(self, name: str) -> datetime:
        try:
            return from_rfc3339(self.text(name, limit=32))
        except ValueError:
            self._fail(name, "an RFC 3339 time in UTC")

    def digest(self, name: str) -> Digest:
        return Digest.parse(self.text(name, limit=192))

    def optional_digest(self, name: str) -> Digest | None:
        """A digest, or null; the field itself must be there."""
        if self._left.get(name, "") is None:
            self.any(name)
            return None
        return self.digest(name)

    def is_null(self, name: str) -> bool:
        """Whether the field is there and null; then it is taken."""
        if self._left.get(name, "") is None:
            self.any(name)
            return True
        return False

    def flag(self, name: str) -> bool:
        value = self.any(name)
        if not isinstance(value, bool):
            self._fail(name, "true or false")
        return value

    def texts(self, name: str, *, limit: int, each: int) -> list[str]:
        """A list of at most `limit` texts of at most `each` characters."""
        value = self.any(name)
        if not isinstance(value, list) or len(value) > limit:
            self._fail(name, f"a list of at most {limit} texts")
        for item in value:
            if not isinstance(item, str) or len(item) > each:
                self._fail(name, f"texts of at most {each} characters")
        return value

    def choice(self, name: str, kind: type[_Choice]) -> _Choice:
        try:
            return kind(self.text(name, limit=64))
        except ValueError:
            self._fail(name, f"one of {', '.join(kind)}")

    def spiffe_id(self, name: str) -> SpiffeId:
        return SpiffeId.parse(self.text(name, limit=512))

    def domain(self, name: str) -> TrustDomain:
        return TrustDomain(self.text(name, limit=128))

    def key_id(self, name: str) -> KeyId:
        return KeyId(self.text(name, limit=64))

    def _fail(self, name: str, expected: str) -> NoReturn:
        raise Malformed(f"expected {expected} as {name!r} in {self._what}")
