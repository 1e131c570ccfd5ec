"""A message that was protected with a credential's key, as evidence: the credential is a join token's id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fltrust.enrollment.ports import TokenStore
from fltrust.enrollment.registration import spend_token
from fltrust.enrollment.types import Approval, Evidence
from fltrust.errors import Malformed, TokenRefused

KIND = "cmp-credential"


@dataclass(frozen=True, slots=True)
class CmpEvidence:
    """Whose key protected the request. Made in this process alone: no message of ours carries one."""

    credential_id: str

    def binding(self) -> bytes:
        return b"cmp\x00" + self.credential_id.encode("ascii")


class CmpChecker:
    """Spends the credential, once, in the transaction that issues."""

    kind = KIND

    def accepts(self, evidence: Evidence) -> bool:
        return isinstance(evidence, CmpEvidence)

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        """What the credential was made for; `TokenRefused` once it was used, cancelled or has expired."""
        if not isinstance(evidence, CmpEvidence):
            raise Malformed("expected a CMP credential")
        record = tokens.get(evidence.credential_id, now=now)
        if record is None:
            raise TokenRefused("the CMP credential is not known here")
        return spend_token(record, tokens=tokens, now=now)
