"""What a log's entries must be like, one after another: for a mirror's verifier and for a monitor."""

from __future__ import annotations

from hmac import compare_digest

from fltrust.errors import EvidenceInvalid, FltrustError, InvalidInput
from fltrust.identity import Epoch
from fltrust.tlog.entries import Entry, LogOpened, TrustEventEntry, parse_entry


class EntrySequence:
    """Reads the entries of one log in order, and refuses what no honest log would have.

    1. Every entry parses as a known kind (`parse_entry`).
    2. The first entry, and no other, opens the log, under the origin that its checkpoints name.
    3. The epochs of trust events go up by one: none is left out, none comes twice.

    It starts at entry `index`; `epoch` is the last one that was read before, None if none was.
    """

    def __init__(self, origin: str, *, index: int = 0, epoch: Epoch | None = None) -> None:
        self.origin = origin
        self.index = index
        self.epoch = epoch

    def read(self, data: bytes) -> Entry:
        """Take the next entry. Raises `EvidenceInvalid` naming it; whoever goes on calls `skip` first."""
        where = f"entry {self.index} of the log {self.origin}"
        try:
            entry = parse_entry(data)  # 1.
        except InvalidInput as error:
            raise EvidenceInvalid(f"{where}: {error.message}", reason=error.reason) from None
        except FltrustError as error:
            raise EvidenceInvalid(f"{where}: {error.message}") from None
        if isinstance(entry, LogOpened) != (self.index == 0):  # 2.
            raise EvidenceInvalid(f"{where}: expected the first entry, and no other, to open the log")
        if isinstance(entry, LogOpened) and not compare_digest(entry.origin.encode(), self.origin.encode()):
            raise EvidenceInvalid(f"{where}: it opens the log {entry.origin[:200]!r}")
        if isinstance(entry, TrustEventEntry):
            expected, self.epoch = self.epoch, entry.epoch
            if expected is not None and entry.epoch != expected + 1:  # 3.
                raise EvidenceInvalid(
                    f"{where}: expected trust epoch {expected + 1}, got {entry.epoch}", reason="epoch-gap"
                )
        self.index += 1
        return entry

    def skip(self) -> None:
        """Go on behind an entry that was refused."""
        self.index += 1
