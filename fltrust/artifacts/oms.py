"""The statement that a model's signature signs: OMS v1.0 (OpenSSF Model Signing), with ours beside it.

An in-toto Statement v1 with predicate ``https://model_signing/signature/v1.0``::

    {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": false,
                       "ignore_paths": [the sidecars, git's files at the top, what the signer left out]},
     "resources":     [{"name": "config.json", "algorithm": "sha256", "digest": "9f86…",
                        "annotations": {"fltrust": ours}}, …]}                     at the first one alone

    ours = {"type": "urn:fltrust:model:v1",
            "filesDigest": "sha256:…",          Manifest.digest: binds names, OMS's root does not
            "sizes": [618, …],                  of the resources, in order
            "unlisted": [{"name": ".gitattributes", "size": 9, "digests": ["…"]}],
            "emptyDirectories": [], "ignored": [],
            "tensors": {"model.safetensors": {"header": "sha256:…", "manifest": "sha256:…",
                                              "set": "sha256:…", "tensors": […]}},
            "lineage": null}

The predicate of OMS has these two keys and no other (its schema refuses a third); annotations of a
resource are what it leaves to others, and what its verifiers pass over. ``resources`` are exactly what
they find: not git's files at the top of a directory, which they ignore and we bind as ``unlisted``. A
model of one file is the resource ``.``, without ``ignore_paths``. With ``"method": "shards"`` and
``"shard_size": n``, resources are ``<name>:<begin>:<end>`` with algorithm ``sha256-sharded-<n>``, sizes
follow from them, and files of no bytes, which have no shard, are ``unlisted``. A model of which OMS sees
no file at all cannot be signed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from hmac import compare_digest

from fltrust import strictjson
from fltrust.artifacts.envelope import MAX_STATEMENT
from fltrust.artifacts.manifest import FileEntry, Manifest, TensorFile
from fltrust.artifacts.resources import Serialization, annotation_of, read_resources, write_resources
from fltrust.artifacts.tensors import MAX_TENSORS, TensorEntry, TensorManifest
from fltrust.artifacts.walk import MAX_FILES, MAX_NAME_BYTES, SIDECARS, is_safe_name, name_order
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest, RunId
from fltrust.strictjson import Fields
from fltrust.updates.intoto import STATEMENT_TYPE, check_same, unknown_predicate

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
OURS = "fltrust"
MODEL_TYPE = "urn:fltrust:model:v1"
GIT_NAMES = (".git", ".gitattributes", ".github", ".gitignore")
"""What OMS verifiers pass over at the top of a directory, with all in it."""

MAX_IGNORED = 1_000

_MAX_MODEL_NAME = 1_024


@dataclass(frozen=True, slots=True)
class LineageLink:
    """The aggregate that a model claims to be, and where its provenance stands."""

    aggregate: Digest
    """Canonical tensor set (`fltrust.artifacts.tensors`)."""
    run_id: RunId
    step: int
    log_index: int
    bundle: Digest
    """SHA-256 of the newest line of the lineage file, without its newline."""
    count: int
    """Lines of the lineage file."""

    def to_json(self) -> dict[str, object]:
        return {
            "aggregate": str(self.aggregate),
            "runId": str(int(self.run_id)),
            "step": self.step,
            "logIndex": self.log_index,
            "bundle": str(self.bundle),
            "count": self.count,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> LineageLink:
        return cls(
            aggregate=fields.digest("aggregate"),
            run_id=RunId(fields.decimal("runId", bits=64)),
            step=fields.number("step"),
            log_index=fields.number("logIndex"),
            bundle=fields.digest("bundle"),
            count=fields.number("count"),
        )


@dataclass(frozen=True, slots=True)
class ModelStatement:
    """What is signed about a model. `name` informs only: a model may be renamed."""

    name: str
    manifest: Manifest
    ignored: tuple[str, ...] = ()
    """What the signer left out; stock verifiers leave it out too, ours does not."""
    lineage: LineageLink | None = None
    stated_subject: Digest | None = None
    """The subject of a foreign statement, whose resources may stand in another order."""

    def __post_init__(self) -> None:
        if len(self.name) > _MAX_MODEL_NAME or "/" in self.name:
            raise Malformed(f"expected the name of a file or directory for a model, got {self.name[:80]!r}")
        if len(self.ignored) > MAX_IGNORED or not all(map(is_safe_name, self.ignored)):
            raise Malformed(f"expected at most {MAX_IGNORED} safe names as ignored, got others")
        if self.is_ours and not is_safe_name(self.name):
            raise Malformed(
                f"expected a model's name without control characters, got {ascii(self.name)[:80]}"
            )

    @property
    def is_ours(self) -> bool:
        """False: signed by another tool, without the ``fltrust`` part; sizes and tensors are not known."""
        return self.stated_subject is None

    @property
    def subject(self) -> Digest:
        """OMS's root: SHA-256 over the resources' digests, in order. It does not bind names."""
        if self.stated_subject is not None:
            return self.stated_subject
        return Digest("sha256", sha256(b"".join(d for e in self._listed for d in e.digests)).digest())

    @property
    def tensor_sets(self) -> dict[str, Digest]:
        """The tensor set of each safetensors file."""
        return {name: found.tensors.set for name, found in self.manifest.tensors.items()}

    def encode(self) -> bytes:
        """The statement's one byte form. Raises `Oversized` if nobody would read it."""
        manifest = self.manifest
        ours: dict[str, object] = {
            "type": MODEL_TYPE,
            "filesDigest": str(manifest.digest),
            "unlisted": [_unlisted_json(entry) for entry in self._unlisted],
            "emptyDirectories": list(manifest.empty_directories or ()),
            "ignored": list(self.ignored),
            "tensors": {name: _tensors_json(found) for name, found in manifest.tensors.items()},
            "lineage": None if self.lineage is None else self.lineage.to_json(),
        }
        if manifest.shard_bytes is None:
            ours["sizes"] = [entry.size for entry in self._listed]
        resources: list[dict[str, object]] = [*write_resources(self._listed, manifest.shard_bytes)]
        if not resources:
            raise Malformed(
                f"expected at least one file with content in the model {self.name!r}, found none",
                hint="git's own files at the top of a directory do not count",
            )
        resources[0]["annotations"] = {OURS: ours}
        predicate = {
            "serialization": Serialization(manifest.shard_bytes, self._ignore_paths).to_json(),
            "resources": resources,
        }
        payload = strictjson.encode(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": self.name, "digest": {"sha256": self.subject.hex}}],
                "predicateType": PREDICATE_TYPE,
                "predicate": predicate,
            }
        )
        if len(payload) > MAX_STATEMENT:
            raise Oversized(f"expected a statement of at most {MAX_STATEMENT} bytes, made {len(payload)}")
        return payload

    @property
    def _listed(self) -> list[FileEntry]:
        return [entry for entry in self.manifest.files if not self._is_unlisted(entry)]

    @property
    def _unlisted(self) -> list[FileEntry]:
        return [entry for entry in self.manifest.files if self._is_unlisted(entry)]

    def _is_unlisted(self, entry: FileEntry) -> bool:
        return entry.name.split("/", 1)[0] in GIT_NAMES or not entry.digests

    @property
    def _ignore_paths(self) -> tuple[str, ...]:
        if not self.manifest.is_directory:
            return ()
        return tuple(sorted({*SIDECARS, *GIT_NAMES, *self.ignored}, key=name_order))


def parse_statement(payload: bytes) -> ModelStatement:
    """Read what `ModelStatement.encode` or another OMS v1.0 signer wrote.

    1. It is JSON of at most `MAX_STATEMENT`, and no key stands twice in an object.
    2. It is an in-toto statement with OMS's predicate and one subject.
    3. Files are digested whole or in shards, with SHA-256; names are safe, each stands once.
    4. The subject is the digest over the resources' digests.
    5. With a ``fltrust`` part: that part and the rest say the same, in the one byte form.

    Raises `StatementRefused` (``unknown-type``) for another predicate, digest or serialization,
    `Malformed` or `Oversized` for the rest.
    """
    statement = _decode(payload)  # 1
    fields = Fields(statement, "a statement")
    kind, predicate_type = fields.text("_type", limit=128), fields.text("predicateType", limit=128)  # 2
    if kind != STATEMENT_TYPE or predicate_type != PREDICATE_TYPE:
        raise unknown_predicate(predicate_type)
    name, subject = _subject(fields)
    predicate = fields.object("predicate")
    serialization = Serialization.from_json(predicate.any("serialization"))  # 3
    resources = predicate.any("resources")
    files, root = read_resources(resources, serialization.shard_bytes)
    if not compare_digest(root, subject):  # 4
        raise Malformed("expected the subject of a model's statement to be the digest of its resources")
    ours = annotation_of(resources, OURS)
    if ours is None:
        return _foreign(name, files, serialization, Digest("sha256", root))
    found = _ours(name, files, serialization, Fields(ours, "the fltrust part of a statement"))
    check_same(found.encode(), payload)  # 5
    return found


def _decode(payload: bytes) -> object:
    """As `strictjson.decode_any`, but fractions are read: some signers write the size of shards as one."""
    if len(payload) > MAX_STATEMENT:
        raise Oversized(f"expected a statement of at most {MAX_STATEMENT} bytes, got {len(payload)}")
    try:
        return json.loads(payload.decode("utf-8"), object_pairs_hook=strictjson.without_duplicates)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"expected a statement as JSON, got something else: {str(error)[:120]}") from None


def _subject(fields: Fields) -> tuple[str, bytes]:
    subjects = fields.objects("subject", limit=1)
    if not subjects:
        raise Malformed("expected one subject in a model's statement, got none")
    digest = Digest.parse("sha256:" + subjects[0].object("digest").text("sha256", limit=64))
    return subjects[0].text("name", limit=_MAX_MODEL_NAME), digest.value


def _foreign(
    name: str, files: list[FileEntry], serialization: Serialization, subject: Digest
) -> ModelStatement:
    """Sizes and empty directories are not stated. What it ignores is told, not honoured."""
    ordered = sorted(files, key=lambda entry: name_order(entry.name))
    manifest = Manifest(tuple(ordered), None, {}, serialization.shard_bytes)
    safe = tuple(sorted(filter(is_safe_name, serialization.ignore_paths))[:MAX_IGNORED])
    return ModelStatement(name, manifest, ignored=safe, stated_subject=subject)


def _ours(name: str, files: list[FileEntry], serialization: Serialization, fields: Fields) -> ModelStatement:
    if fields.text("type", limit=64) != MODEL_TYPE:
        raise Malformed(f"expected {MODEL_TYPE} as the fltrust part of a statement, got another type")
    if serialization.shard_bytes is None:
        sizes = fields.any("sizes")
        if not isinstance(sizes, list) or len(sizes) != len(files):
            raise Malformed("expected one size for each resource of a statement")
        files = [replace(entry, size=_size(size)) for entry, size in zip(files, sizes, strict=True)]
    files += [_unlisted(item) for item in fields.objects("unlisted", limit=MAX_FILES)]
    manifest = Manifest(
        tuple(sorted(files, key=lambda entry: name_order(entry.name))),
        tuple(fields.texts("emptyDirectories", limit=MAX_FILES, each=MAX_NAME_BYTES)),
        _tensors(fields.any("tensors")),
        serialization.shard_bytes,
    )
    manifest.check_names_stay_apart()
    return ModelStatement(
        name,
        manifest,
        tuple(fields.texts("ignored", limit=MAX_IGNORED, each=MAX_NAME_BYTES)),
        None if fields.is_null("lineage") else LineageLink.from_json(fields.object("lineage")),
    )


def _size(value: object) -> int:
    if type(value) is not int:
        raise Malformed("expected sizes in a statement as integers")
    return value


def _unlisted_json(entry: FileEntry) -> dict[str, object]:
    return {"name": entry.name, "size": entry.size, "digests": [digest.hex() for digest in entry.digests]}


def _unlisted(fields: Fields) -> FileEntry:
    digests = fields.texts("digests", limit=MAX_FILES, each=64)
    return FileEntry(
        fields.text("name", limit=MAX_NAME_BYTES),
        tuple(Digest.parse(f"sha256:{digest}").value for digest in digests),
        _size(fields.any("size")),
    )


def _tensors_json(found: TensorFile) -> dict[str, object]:
    return {
        "header": f"sha256:{found.header.hex()}",
        "manifest": str(found.tensors.manifest),
        "set": str(found.tensors.set),
        "tensors": [entry.to_json() for entry in found.tensors.tensors],
    }


def _tensors(value: object) -> dict[str, TensorFile]:
    if not isinstance(value, dict) or len(value) > MAX_FILES:
        raise Malformed("expected the tensors of a statement by file")
    found = {}
    for name, item in value.items():
        fields = Fields(item, f"tensors of {name[:80]!r}")
        entries = map(TensorEntry.from_json, fields.objects("tensors", limit=MAX_TENSORS))
        found[name] = TensorFile(fields.digest("header").value, TensorManifest(tuple(entries)))
    return found
