"""Instructions and updates: canonical digests, signed statements, and their verification.

    statement = UpdateStatement(…, content=content_digest(content), …)
    signed = sign_statement(statement, signer=signer, chain=chain)
    verified = Verifier(bundle).verify_update(signed, at=now, judge=view.judge, expected=…, content=content)
    check_structure(content, like=model)

Needs neither Flower nor numpy: the flower room maps its messages to `Content`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fltrust.updates.content import Content, Record, RecordKind, Tensor
    from fltrust.updates.digest import (
        CONTENT_ALGORITHM,
        MODEL_ALGORITHM,
        ContentDigests,
        content_digest,
        digest_content,
        model_digest,
    )
    from fltrust.updates.dsse import PAYLOAD_TYPE, Envelope, pae
    from fltrust.updates.signing import (
        MAX_SEALED_SIGNED_BYTES,
        MAX_SIGNED_BYTES,
        SignedStatement,
        sign_statement,
    )
    from fltrust.updates.statement import (
        AdmittedUpdate,
        InstructionStatement,
        Phase,
        SealedRoundStatement,
        Statement,
        UpdateStatement,
        parse_statement,
        phase_of,
    )
    from fltrust.updates.structure import StructurePolicy, StructureSpec, TensorSpec, check_structure
    from fltrust.updates.tree import DigestMemo
    from fltrust.updates.verify import (
        ExpectedInstruction,
        ExpectedUpdate,
        Judge,
        Opened,
        VerifiedInstruction,
        VerifiedReceipt,
        VerifiedUpdate,
        Verifier,
        claimed_at,
        same_digest,
        unverified_statement,
    )

__all__ = [
    "CONTENT_ALGORITHM",
    "MAX_SEALED_SIGNED_BYTES",
    "MAX_SIGNED_BYTES",
    "MODEL_ALGORITHM",
    "PAYLOAD_TYPE",
    "AdmittedUpdate",
    "Content",
    "ContentDigests",
    "DigestMemo",
    "Envelope",
    "ExpectedInstruction",
    "ExpectedUpdate",
    "InstructionStatement",
    "Judge",
    "Opened",
    "Phase",
    "Record",
    "RecordKind",
    "SealedRoundStatement",
    "SignedStatement",
    "Statement",
    "StructurePolicy",
    "StructureSpec",
    "Tensor",
    "TensorSpec",
    "UpdateStatement",
    "VerifiedInstruction",
    "VerifiedReceipt",
    "VerifiedUpdate",
    "Verifier",
    "check_structure",
    "claimed_at",
    "content_digest",
    "digest_content",
    "model_digest",
    "pae",
    "parse_statement",
    "phase_of",
    "same_digest",
    "sign_statement",
    "unverified_statement",
]

_HOMES = {
    "content": (
        "Content",
        "Record",
        "RecordKind",
        "Tensor",
    ),
    "digest": (
        "CONTENT_ALGORITHM",
        "MODEL_ALGORITHM",
        "ContentDigests",
        "content_digest",
        "digest_content",
        "model_digest",
    ),
    "dsse": (
        "PAYLOAD_TYPE",
        "Envelope",
        "pae",
    ),
    "signing": (
        "MAX_SEALED_SIGNED_BYTES",
        "MAX_SIGNED_BYTES",
        "SignedStatement",
        "sign_statement",
    ),
    "statement": (
        "AdmittedUpdate",
        "InstructionStatement",
        "Phase",
        "SealedRoundStatement",
        "Statement",
        "UpdateStatement",
        "parse_statement",
        "phase_of",
    ),
    "structure": (
        "StructurePolicy",
        "StructureSpec",
        "TensorSpec",
        "check_structure",
    ),
    "tree": ("DigestMemo",),
    "verify": (
        "ExpectedInstruction",
        "ExpectedUpdate",
        "Judge",
        "Opened",
        "VerifiedInstruction",
        "VerifiedReceipt",
        "VerifiedUpdate",
        "Verifier",
        "claimed_at",
        "same_digest",
        "unverified_statement",
    ),
}
"""Where each name lives: a module is loaded when one of its names is first used, since whoever verifies a
model needs few of them."""


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
