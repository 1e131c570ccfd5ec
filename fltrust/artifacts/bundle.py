"""Sigstore bundles, v0.3: one signature with all that makes it verifiable for good.

    {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"certificate": {"rawBytes": …},
                              "tlogEntries": [{…, "inclusionProof": {…, "checkpoint": {"envelope": …}}}],
                              "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": …}]}},
     "dsseEnvelope": {"payload": …, "payloadType": "application/vnd.in-toto+json",
                      "signatures": [{"sig": …}]}}

What others write is read in any spacing and order of fields; ours has one byte form. Field by field
this follows sigstore's protobuf-specs (`sigstore_bundle.proto`, `sigstore_rekor.proto`) as JSON: 64-bit
integers are decimal strings, bytes are standard base64. A field that the format does not name is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fltrust import strictjson
from fltrust.artifacts.envelope import MAX_ENVELOPE, SignedEnvelope, optional_text
from fltrust.errors import Malformed, Oversized
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.strictjson import Fields
from fltrust.tlog.merkle import MAX_PROOF
from fltrust.tlog.ports import MAX_ENTRY

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_MEDIA_TYPES = {
    MEDIA_TYPE: True,
    "application/vnd.dev.sigstore.bundle+json;version=0.3": True,
    "application/vnd.dev.sigstore.bundle+json;version=0.2": False,
    "application/vnd.dev.sigstore.bundle+json;version=0.1": False,
}
"""Media type → whether the certificate stands alone, as it does since 0.3."""

MAX_BUNDLE = MAX_ENVELOPE + 2**20
MAX_VALUES = 10_000
"""JSON values of a bundle: the statement is one, in base64."""
MAX_CERTIFICATE = 16 * 1024
MAX_CHAIN = 8
MAX_ENTRIES = 8
MAX_TIMESTAMPS = 8
MAX_TIMESTAMP = 64 * 1024
MAX_CHECKPOINT = 64 * 1024


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """The audit path from an entry to the root of a tree (RFC 6962, 2.1.1), and a checkpoint of that tree."""

    index: int
    tree_size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class TlogEntry:
    """One entry of a transparency log. Holding one says nothing about its truth.

    `promise` is Rekor v1's signed entry timestamp over `integrated_time`; both are None in Rekor v2.
    """

    log_id: bytes
    kind: str
    version: str
    index: int
    body: bytes
    proof: InclusionProof
    integrated_time: int | None = None
    promise: bytes | None = None


@dataclass(frozen=True, slots=True)
class SigstoreBundle:
    """A parsed bundle. `certificate` and `intermediates` are DER; the second is empty since v0.3."""

    certificate: bytes
    envelope: SignedEnvelope
    entries: tuple[TlogEntry, ...]
    timestamps: tuple[bytes, ...]
    intermediates: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a bundle with a DSSE envelope, ours or another's.

        `Oversized` before anything is parsed or past a bound, else `Malformed`. ``reason`` tells apart:
        ``unknown-media-type``, ``message-signature`` (a signature over a bare file, which states
        nothing), ``public-key`` (no certificate, so no name), ``unknown-payload-type``,
        ``signature-count``, ``entry-count``.
        """
        value = strictjson.decode_any(data, limit=MAX_BUNDLE, what="a Sigstore bundle", values=MAX_VALUES)
        fields = Fields(value, "a Sigstore bundle")
        media_type = fields.text("mediaType", limit=128)
        if media_type not in _MEDIA_TYPES:
            raise Malformed(
                f"expected a bundle of type {MEDIA_TYPE!r}, got {media_type[:80]!r}",
                reason="unknown-media-type",
            )
        if fields.take("messageSignature") is not None:
            raise Malformed(
                "expected a signed statement (DSSE) in the bundle, got a signature over a bare file",
                reason="message-signature",
                hint="such a signature says nothing of the model; sign with fltrust or model-signing",
            )
        material = fields.object("verificationMaterial")
        certificate, intermediates = _certificates(material, is_alone=_MEDIA_TYPES[media_type])
        entries = tuple(_entry(item) for item in _list(material, "tlogEntries", limit=MAX_ENTRIES))
        timestamps = _timestamps(material)
        material.done()
        envelope = SignedEnvelope.from_fields(fields.object("dsseEnvelope"))
        fields.done()
        return cls(certificate, envelope, entries, timestamps, intermediates)

    def to_json(self) -> bytes:
        """The one byte form in which we write a bundle."""
        if self.intermediates:
            raise Malformed("expected a bundle with one certificate to write, got a chain")
        material: dict[str, object] = {
            "certificate": {"rawBytes": to_base64(self.certificate)},
            "tlogEntries": [_entry_fields(entry) for entry in self.entries],
        }
        if self.timestamps:
            material["timestampVerificationData"] = {
                "rfc3161Timestamps": [{"signedTimestamp": to_base64(t)} for t in self.timestamps]
            }
        return strictjson.encode(
            {
                "mediaType": MEDIA_TYPE,
                "verificationMaterial": material,
                "dsseEnvelope": self.envelope.as_fields(),
            }
        )


def _certificates(material: Fields, *, is_alone: bool) -> tuple[bytes, tuple[bytes, ...]]:
    if material.take("publicKey") is not None:
        raise Malformed("expected a certificate in the bundle, got a bare key", reason="public-key")
    alone, chain = material.take("certificate"), material.take("x509CertificateChain")
    if (alone is None) == (chain is None) or (is_alone and alone is None):
        raise Malformed(
            "expected one certificate in the bundle, got none, both forms, or a chain in a bundle of v0.3",
            reason="certificate-count",
        )
    if alone is not None:
        return _raw(Fields(alone, "the certificate"), "rawBytes", limit=MAX_CERTIFICATE), ()
    fields = Fields(chain, "the certificate chain")
    found = [
        _raw(item, "rawBytes", limit=MAX_CERTIFICATE)
        for item in _list(fields, "certificates", limit=MAX_CHAIN)
    ]
    fields.done()
    if not found:
        raise Malformed("expected a certificate in the chain, got none", reason="certificate-count")
    return found[0], tuple(found[1:])


def _timestamps(material: Fields) -> tuple[bytes, ...]:
    value = material.take("timestampVerificationData")
    if value is None:
        return ()
    fields = Fields(value, "the timestamps")
    found = tuple(
        _raw(item, "signedTimestamp", limit=MAX_TIMESTAMP)
        for item in _list(fields, "rfc3161Timestamps", limit=MAX_TIMESTAMPS)
    )
    fields.done()
    if len(set(found)) != len(found):
        raise Malformed("expected different timestamps in the bundle, got one twice", reason="duplicate")
    return found


def _entry(fields: Fields) -> TlogEntry:
    log = fields.object("logId")
    log_id = _raw(log, "keyId", limit=64)
    kind = fields.object("kindVersion")
    kind_name, version = kind.text("kind", limit=64), kind.text("version", limit=16)
    kind.done()
    integrated = optional_text(fields, "integratedTime", limit=20)
    promised = fields.take("inclusionPromise")
    promise = None
    if promised is not None:
        promise = _raw(Fields(promised, "the inclusion promise"), "signedEntryTimestamp", limit=1024)
    entry = TlogEntry(
        log_id=log_id,
        kind=kind_name,
        version=version,
        index=_u64(optional_text(fields, "logIndex", limit=20) or "0", "logIndex"),
        body=from_base64(fields.text("canonicalizedBody", limit=4 * MAX_ENTRY), "the entry's body"),
        proof=_proof(fields.object("inclusionProof")),
        integrated_time=_u64(integrated, "integratedTime") or None if integrated else None,
        promise=promise,
    )
    fields.done()
    if len(entry.body) > MAX_ENTRY:
        raise Oversized(f"expected a log entry of at most {MAX_ENTRY} bytes, got {len(entry.body)}")
    return entry


def _proof(fields: Fields) -> InclusionProof:
    checkpoint = fields.object("checkpoint")
    envelope = checkpoint.text("envelope", limit=MAX_CHECKPOINT)
    checkpoint.done()
    hashes = fields.take("hashes")  # absent in a tree of one entry
    if hashes is None:
        hashes = []
    if not isinstance(hashes, list) or len(hashes) > MAX_PROOF:
        raise Malformed(f"expected at most {MAX_PROOF} hashes in the inclusion proof")
    proof = InclusionProof(
        index=_u64(optional_text(fields, "logIndex", limit=20) or "0", "logIndex"),
        tree_size=_u64(fields.text("treeSize", limit=20), "treeSize"),
        root=_hash(fields.text("rootHash", limit=64)),
        hashes=tuple(_hash(item) for item in hashes),
        checkpoint=envelope.encode(),
    )
    fields.done()
    return proof


def _entry_fields(entry: TlogEntry) -> dict[str, object]:
    proof = entry.proof
    fields: dict[str, object] = {
        "logIndex": str(entry.index),
        "logId": {"keyId": to_base64(entry.log_id)},
        "kindVersion": {"kind": entry.kind, "version": entry.version},
        "canonicalizedBody": to_base64(entry.body),
        "inclusionProof": {
            "logIndex": str(proof.index),
            "treeSize": str(proof.tree_size),
            "rootHash": to_base64(proof.root),
            "hashes": [to_base64(item) for item in proof.hashes],
            "checkpoint": {"envelope": proof.checkpoint.decode()},
        },
    }
    if entry.integrated_time is not None:
        fields["integratedTime"] = str(entry.integrated_time)
    if entry.promise is not None:
        fields["inclusionPromise"] = {"signedEntryTimestamp": to_base64(entry.promise)}
    return fields


def _list(fields: Fields, name: str, *, limit: int) -> Sequence[Fields]:
    """A repeated field of protobuf: absent when it is empty."""
    value = fields.take(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed(f"expected a list as {name!r}")
    if len(value) > limit:
        raise Oversized(f"expected at most {limit} of {name!r}, got {len(value)}")
    return [Fields(item, name) for item in value]


def _raw(fields: Fields, name: str, *, limit: int) -> bytes:
    """The bytes of a message that holds one bytes field and nothing else."""
    data = from_base64(fields.text(name, limit=4 * (limit // 3 + 1)), name)
    fields.done()
    if not data:
        raise Malformed(f"expected bytes as {name!r}, got none")
    return data


def _hash(value: object) -> bytes:
    data = from_base64(value, "a hash") if isinstance(value, str) and len(value) <= 64 else b""
    if len(data) != 32:
        raise Malformed("expected a SHA-256 hash of 32 bytes in the inclusion proof")
    return data


def _u64(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()) or str(int(text)) != text or int(text) >= 2**63:
        raise Malformed(f"expected an integer as a decimal string as {name!r}, got {text[:20]!r}")
    return int(text)
