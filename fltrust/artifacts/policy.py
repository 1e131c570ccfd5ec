"""What a verifier demands, in one TOML file.

    version = 1
    mode = "enforce"                         # or "advisory": report what enforce would refuse

    [[signers]]                              # any of them may have signed
    identity = "spiffe://hospitals.example/signer/*"
    # issuer = "https://accounts.example"    # for an identity that is no SPIFFE ID

    [evidence]
    log = true                               # an entry in a log of the trust file
    timestamp = false                        # demand an RFC 3161 timestamp: a log's signed time will not do
    witnesses = ["name+hash+key", …]         # C2SP verifier keys
    min-witnesses = 0

    [lineage]
    required = false
    aggregators = ["spiffe://hospitals.example/aggregator/*"]
    min-participants = 0                     # different ones, over all rounds
    min-rounds = 0
    app-hashes = []                          # FAB hashes; every round must have run one of them

    [status]
    required = false                         # refuse where nothing is known of revocation
    max-age = "7d"                           # s, m, h, d; no bound if left out
    tainted = "refuse"                       # or "warn"

    [content]
    pickles = true                           # whether the model may hold files that run code when loaded
    formats = []                             # file name endings; empty: any
    max-size = 0                             # bytes; 0: any

The values shown are the defaults, but for the signers, witnesses, aggregators and max-age, which are
empty. A demand on participants, rounds or apps demands the lineage, too. An unknown key is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import NoReturn, Self, TypeVar

from fltrust.artifacts.identity import IdentityRule
from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import Digest
from fltrust.tlog.note import VerifierKey

_Choice = TypeVar("_Choice", bound=StrEnum)

POLICY_VERSION = 1
MAX_POLICY = 256 * 1024
_EMPTY = Digest("sha256", sha256(b"").digest())
_AGE = re.compile(r"([0-9]{1,6})([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_ENDING = re.compile(r"\.?[A-Za-z0-9_-]{1,32}\Z")


class Mode(StrEnum):
    """Whether a refusal stops, or is only told."""

    ENFORCE = "enforce"
    ADVISORY = "advisory"


class OnTaint(StrEnum):
    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a verifier demands; the defaults are those of an empty file. Holds no secret and no state."""

    signers: tuple[IdentityRule, ...] = ()
    mode: Mode = Mode.ENFORCE
    require_log: bool = True
    require_timestamp: bool = False
    witnesses: tuple[str, ...] = ()
    min_witnesses: int = 0
    require_lineage: bool = False
    aggregators: tuple[IdentityRule, ...] = ()
    min_participants: int = 0
    min_rounds: int = 0
    app_hashes: frozenset[str] = frozenset()
    require_status: bool = False
    max_status_age: timedelta | None = None
    on_taint: OnTaint = OnTaint.REFUSE
    allow_pickles: bool = True
    formats: frozenset[str] = frozenset()
    max_size: int | None = None
    digest: Digest = _EMPTY
    """SHA-256 of the file that says it: what a verification summary names the policy by."""

    def __post_init__(self) -> None:
        keys = {VerifierKey.parse(vkey).public_key for vkey in self.witnesses}
        if len(keys) != len(self.witnesses):  # under two names, one key would count twice
            raise Malformed("expected a key of its own for each witness in the policy, got one twice")
        if self.min_witnesses > len(keys):
            raise Malformed(
                f"expected at least {self.min_witnesses} witnesses in the policy, found {len(keys)}"
            )

    @property
    def demands_lineage(self) -> bool:
        return bool(self.require_lineage or self.min_participants or self.min_rounds or self.app_hashes)

    @classmethod
    def from_toml(cls, data: bytes) -> Self:
        """Read a policy; `Oversized`, or `Malformed` naming the key that is unknown or of another type."""
        import tomllib

        if len(data) > MAX_POLICY:
            raise Malformed(f"expected a policy of at most {MAX_POLICY} bytes, got {len(data)}")
        try:
            table = _Table(tomllib.loads(data.decode("utf-8")), "the policy")
        except (ValueError, RecursionError) as error:
            raise Malformed(f"expected a policy in TOML: {str(error)[:120]}") from None
        version = table.count("version")
        if version != POLICY_VERSION:
            raise Malformed(f"expected version = {POLICY_VERSION} in the policy, got {version}")
        evidence, lineage = table.table("evidence"), table.table("lineage")
        status, content = table.table("status"), table.table("content")
        policy = cls(
            digest=Digest.sha256_of(data),
            signers=tuple(_signer(item) for item in table.tables("signers")),
            mode=table.choice("mode", Mode.ENFORCE),
            require_log=evidence.flag("log", default=True),
            require_timestamp=evidence.flag("timestamp", default=False),
            witnesses=evidence.texts("witnesses"),
            min_witnesses=evidence.count("min-witnesses"),
            require_lineage=lineage.flag("required", default=False),
            aggregators=tuple(IdentityRule(text) for text in lineage.texts("aggregators")),
            min_participants=lineage.count("min-participants"),
            min_rounds=lineage.count("min-rounds"),
            app_hashes=frozenset(lineage.texts("app-hashes", like=_HASH)),
            require_status=status.flag("required", default=False),
            max_status_age=status.age("max-age"),
            on_taint=status.choice("tainted", OnTaint.REFUSE),
            allow_pickles=content.flag("pickles", default=True),
            formats=frozenset(f".{e.lstrip('.').lower()}" for e in content.texts("formats", like=_ENDING)),
            max_size=content.count("max-size") or None,
        )
        table.done()
        for part in (evidence, lineage, status, content):
            part.done()
        return policy

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.from_toml(read_bounded(path, limit=MAX_POLICY))


class _Table:
    """A TOML table that is emptied key by key; what is left over is refused by name."""

    def __init__(self, values: Mapping[str, object], name: str) -> None:
        self._left, self._name = dict(values), name

    def table(self, key: str) -> _Table:
        value = self._left.pop(key, {})
        if not isinstance(value, dict):
            self._fail(key, "a table", value)
        return _Table(value, f"{self._name}'s [{key}]")

    def tables(self, key: str) -> tuple[_Table, ...]:
        value = self._left.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._fail(key, "tables", value)
        return tuple(_Table(item, f"{self._name}'s [[{key}]]") for item in value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            self._fail(key, "true or false", value)
        return value

    def text(self, key: str) -> str | None:
        value = self._left.pop(key, None)
        if value is not None and not isinstance(value, str):
            self._fail(key, "text", value)
        return value

    def texts(self, key: str, *, like: re.Pattern[str] | None = None) -> tuple[str, ...]:
        value = self._left.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._fail(key, "a list of text", value)
        for text in value:
            if like is not None and not like.match(text):
                self._fail(key, f"texts of the form {like.pattern}", text)
        return tuple(value)

    def count(self, key: str) -> int:
        value = self._left.pop(key, 0)
        if type(value) is not int or not 0 <= value < 2**53:
            self._fail(key, "a number from 0", value)
        return value

    def choice(self, key: str, default: _Choice) -> _Choice:
        value = self._left.pop(key, default.value)
        try:
            return type(default)(str(value))
        except ValueError:
            self._fail(key, f"one of {', '.join(type(default))}", value)

    def age(self, key: str) -> timedelta | None:
        text = self.text(key)
        found = _AGE.match(text or "")
        if text is not None and not found:
            self._fail(key, "an age such as '7d' or '12h'", text)
        return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None

    def done(self) -> None:
        if self._left:
            raise Malformed(
                f"expected no key {min(self._left)!r} in {self._name}: it is not known",
                reason="unknown-key",
                hint="see docs/reference/verification.md for the keys of this version",
            )

    def _fail(self, key: str, expected: str, found: object) -> NoReturn:
        raise Malformed(f"expected {key!r} in {self._name} as {expected}, got {found!r:.80}")


def _signer(table: _Table) -> IdentityRule:
    rule = IdentityRule(table.text("identity") or "", table.text("issuer"))
    table.done()
    return rule
