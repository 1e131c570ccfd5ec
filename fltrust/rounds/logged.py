"""How a sealed round stands in the log: its entry, and the proofs that a written record carries of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from fltrust.errors import EvidenceInvalid, EvidenceMissing
from fltrust.identity import Digest, KeyId, TrustDomain
from fltrust.tlog.checkpoint import CheckpointPolicy
from fltrust.tlog.entries import PublicName, SealedRound
from fltrust.tlog.merkle import (
    EMPTY_ROOT,
    Prover,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from fltrust.tlog.note import VerifierKey
from fltrust.tlog.ports import HashSource, TreeHead
from fltrust.updates.receipt import SealedRoundStatement


def log_name(domain: TrustDomain) -> str:
    """The origin of a domain's log, and the name of the key that signs its checkpoints."""
    return f"{domain}/log"


def sealed_entry(receipt: SealedRoundStatement, *, payload: Digest) -> SealedRound:
    """The entry of a receipt; `payload` is the SHA-256 of the receipt's payload.

    A function of the receipt alone, so that its place in the log can be checked without the log. It
    counts who was admitted and refused, and names none of them.
    """
    return SealedRound(
        at=receipt.sealed_at,
        run_id=receipt.run_id,
        step=receipt.step,
        round=receipt.round,
        phase=receipt.phase,
        aggregator=PublicName(str(receipt.aggregator)),
        epoch=receipt.epoch,
        admitted=len(receipt.admitted),
        refused=len(receipt.refused),
        receipt=payload,
    )


@dataclass(frozen=True, slots=True)
class PlaceProof:
    """That an entry is in the tree of a checkpoint, and that the tree before it was its beginning."""

    inclusion: tuple[bytes, ...]
    consistency: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """What shows that receipts stand in the log: nothing of it is verified yet.

    `key` is a vkey (C2SP signed-note), `checkpoint` a signed note, `proofs` go by the index of the entry.
    """

    key: str
    checkpoint: bytes
    proofs: Mapping[int, PlaceProof]


def prove_places(source: HashSource, size: int, indexes: Iterable[int]) -> dict[int, PlaceProof]:
    """Prove entries of the tree of `size` entries, each as `VerifiedLog.check` reads it."""
    prover = Prover(source, size)
    return {index: PlaceProof(prover.inclusion(index), prover.consistency(index)) for index in indexes}


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """The tree of one checkpoint whose signature was verified, and the proofs that came with it."""

    origin: str
    key_id: KeyId
    head: TreeHead
    proofs: Mapping[int, PlaceProof]

    @classmethod
    def of(cls, evidence: LogEvidence, domain: TrustDomain) -> Self:
        """Verify the checkpoint with the key beside it: whose key that is, the receipts say.

        Raises `Malformed`, `SignatureInvalid`, or `EvidenceInvalid` for the log of another domain.
        """
        policy = CheckpointPolicy.of(evidence.key)
        if policy.origin != log_name(domain):
            raise EvidenceInvalid(f"expected the log {log_name(domain)}, got {policy.origin[:200]!r}")
        checkpoint = policy.verify(evidence.checkpoint)
        return cls(policy.origin, key_id_of(policy.log[0]), checkpoint.head, evidence.proofs)

    def check(self, receipt: SealedRoundStatement, *, payload: Digest) -> None:
        """Return only if the receipt stands where it says, in the log that it names.

        1. It names the key that signed the checkpoint, else `EvidenceInvalid`.
        2. There is a proof for it, else `EvidenceMissing`.
        3. Its entry (`sealed_entry`) is number `index` of the checkpoint's tree, else `EvidenceInvalid`.
        4. The tree of the entries before it, whose root it names, is the beginning of the checkpoint's
           tree, else `EvidenceInvalid`.
        """
        # 1.
        if receipt.log != self.key_id:
            raise EvidenceInvalid(f"expected the log with key {self.key_id}, the receipt names {receipt.log}")
        # 2.
        proof = self.proofs.get(receipt.index)
        if proof is None:
            raise EvidenceMissing(f"expected a proof that entry {receipt.index} is in the log, found none")
        # 3.
        leaf = leaf_hash(sealed_entry(receipt, payload=payload).encode())
        verify_inclusion(proof.inclusion, leaf=leaf, index=receipt.index, head=self.head)
        # 4.
        before = TreeHead(receipt.index, EMPTY_ROOT if receipt.root is None else receipt.root.value)
        verify_consistency(proof.consistency, old=before, new=self.head)


def key_id_of(key: VerifierKey) -> KeyId:
    """How receipts name the key that signs checkpoints: SHA-256 of its SubjectPublicKeyInfo."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PublicKey.from_public_bytes(key.public_key)
    return KeyId.of_spki(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
