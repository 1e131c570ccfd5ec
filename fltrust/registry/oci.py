"""A signed model as an OCI image layout: the model, and its signature as a referrer of it (OCI 1.1).

    <folder>/oci-layout, index.json, blobs/sha256/<digest>

The model is an image manifest whose layers are its files as they are, each named by the annotation
``org.opencontainers.image.title``. The Sigstore bundle is a second manifest, with the first as its
``subject`` and ``artifactType`` ``application/vnd.dev.sigstore.bundle.v0.3+json``: what cosign, ORAS and
others look for. Its tag, ``sha256-<digest of the model's manifest>``, is where a registry without the
referrers API keeps the list of referrers. Any tool that copies layouts pushes both.
"""

from __future__ import annotations

import hmac
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from fltrust.artifacts.walk import LINEAGE_NAME, SIGNATURE_NAME, SINGLE_FILE, Listing, is_safe_name
from fltrust.errors import Conflict, EvidenceMissing, Malformed, NotFound, Oversized, Tampered
from fltrust.files import read_bounded

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
LINEAGE_TYPE = "application/vnd.fltrust.lineage.v1+jsonl"
MODEL_TYPE = "application/vnd.fltrust.model.v1"
FILE_TYPE = "application/octet-stream"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
SINGLE = "fltrust.single-file"
REF = "org.opencontainers.image.ref.name"

MAX_MANIFEST = 4 * 2**20
"""Bytes of one manifest: what registries must take (OCI distribution, pushing manifests)."""
_CHUNK = 4 * 2**20
_DIGEST = 71  # len("sha256:") + 64


@dataclass(frozen=True, slots=True)
class Packed:
    """Where a model and its signature stand in a layout."""

    model: str
    """Digest of the model's manifest: what a deployment pins."""
    signature: str
    """Digest of the referrer."""
    tag: str
    referrers_tag: str


def pack(model: Path, layout: Path, *, tag: str) -> Packed:
    """Write a signed model as a new OCI image layout; its files are not verified here.

    Raises `Conflict` if something is at `layout`, `EvidenceMissing` if the model has no signature,
    `Oversized` if it has more files than a manifest holds.
    """
    if layout.exists():
        raise Conflict(f"expected nothing at {layout}, found something there")
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    try:
        manifest = _write_model(model, blobs)
        subject = _descriptor(_add(blobs, _json(manifest)), MANIFEST_TYPE, artifactType=MODEL_TYPE)
        referrer = _descriptor(
            _add(blobs, _json(_referrer(model, blobs, subject))), MANIFEST_TYPE, artifactType=BUNDLE_TYPE
        )
        index = _descriptor(_add(blobs, _json(_index([referrer]))), INDEX_TYPE)
        referrers_tag = subject["digest"].replace(":", "-")
        top = _index([_tagged(subject, tag), _tagged(index, referrers_tag)])
        (layout / "index.json").write_bytes(_json(top))
        (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    except BaseException:
        shutil.rmtree(layout, ignore_errors=True)
        raise
    return Packed(subject["digest"], referrer["digest"], tag, referrers_tag)


def unpack(layout: Path, *, tag: str, limit: int | None = None) -> Callable[[Path], Path]:
    """What `fltrust.registry.gate.fetch_verified` copies with: a layout's model, signature and lineage.

    Every blob is checked against its digest (`Tampered`), and every name before it is used (`Malformed`).
    At most `limit` bytes are written (`Oversized`): one blob may stand under many names.
    Without a signature in the layout nothing is written: `EvidenceMissing`.
    """
    return lambda stage: _unpack(layout, stage, tag, limit)


def _unpack(layout: Path, stage: Path, tag: str, limit: int | None) -> Path:
    blobs = layout / "blobs" / "sha256"
    try:
        index = _object(read_bounded(layout / "index.json", limit=MAX_MANIFEST))
        tags = {item.get("annotations", {}).get(REF): item for item in index["manifests"]}
        if tag not in tags:
            raise NotFound(f"expected the tag {tag!r} in {layout}, found {', '.join(map(str, tags))[:200]}")
        subject = tags[tag]
        model = _manifest(blobs, subject)
        files = dict(_files(model))
        sidecars = _sidecars(blobs, subject["digest"], tags.get(str(subject["digest"]).replace(":", "-")))
        is_single = model.get("annotations", {}).get(SINGLE) == "true"
        if set(files) & set(sidecars) or (is_single and not _is_one_file(files)):
            raise Malformed("expected a model's files, each under its own name, in the layout")
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"expected an OCI image layout at {layout}: {type(error).__name__} {error}") from None
    if is_single:
        (name,) = files
        sidecars = {name + ending.removeprefix("model"): item for ending, item in sidecars.items()}
        top, place = stage, stage / name
    else:
        top = place = stage / "model"
    every, left = {**files, **sidecars}, limit
    if any(str(parent) in every for name in every for parent in PurePosixPath(name).parents):
        raise Malformed("expected files in the layout, got one that is a folder, too")
    for name, descriptor in every.items():
        size = _extract(blobs, descriptor, top / name, limit=left)
        left = None if left is None else left - size
    return place


def _is_one_file(files: Mapping[str, Any]) -> bool:
    return len(files) == 1 and all("/" not in name for name in files)


def _sidecars(blobs: Path, subject: str, referrers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Signature and lineage: the layers of the first referrer that is a Sigstore bundle of the model."""
    for item in _manifest(blobs, referrers)["manifests"] if referrers else []:
        found = _manifest(blobs, item)
        if found.get("artifactType") == BUNDLE_TYPE:
            if found["subject"]["digest"] != subject:
                raise Malformed("expected a signature of this model in the layout, got one of another")
            files = dict(_files(found))
            return {name: files[name] for name in (SIGNATURE_NAME, LINEAGE_NAME) if name in files}
    raise EvidenceMissing(
        "expected a signature beside the model in the layout, found none", reason="unsigned"
    )


def _write_model(model: Path, blobs: Path) -> dict[str, Any]:
    layers = []
    with Listing(model) as listing:
        opener = listing.opener()
        try:
            for file in listing.files:
                name = model.name if file.name == SINGLE_FILE else file.name
                digest, size = _copy(opener.open(file.name), blobs)
                layers.append({**_descriptor((digest, size), FILE_TYPE), "annotations": {TITLE: name}})
        finally:
            opener.close()
        single = not listing.is_directory
    manifest = _image(MODEL_TYPE, blobs, layers)
    if single:
        manifest["annotations"] = {SINGLE: "true"}
    if len(_json(manifest)) > MAX_MANIFEST:
        raise Oversized(f"expected a model whose file names fit into a manifest of {MAX_MANIFEST} bytes")
    return manifest


def _referrer(model: Path, blobs: Path, subject: Mapping[str, Any]) -> dict[str, Any]:
    layers = []
    for name, media in ((SIGNATURE_NAME, BUNDLE_TYPE), (LINEAGE_NAME, LINEAGE_TYPE)):
        path = model / name if model.is_dir() else model.with_name(model.name + name.removeprefix("model"))
        fd = _open_sidecar(path)
        if fd is None:
            continue
        digest, size = _copy(fd, blobs)
        layers.append({**_descriptor((digest, size), media), "annotations": {TITLE: name}})
    if not layers or layers[0]["mediaType"] != BUNDLE_TYPE:
        raise EvidenceMissing(f"expected a signature beside {model}, found none", reason="unsigned")
    return {**_image(BUNDLE_TYPE, blobs, layers), "subject": dict(subject)}


def _open_sidecar(path: Path) -> int | None:
    """Through no link: what lies beside a model may be of another's making, and a layout is made public."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Malformed(f"expected a file at {path}, could not open it: {error.strerror or error}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Malformed(f"expected a file at {path}, found something else")
    return fd


def _image(artifact_type: str, blobs: Path, layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": _descriptor(_add(blobs, b"{}"), EMPTY_TYPE),
        "layers": layers,
    }


def _index(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}


def _descriptor(blob: tuple[str, int], media: str, **more: str) -> dict[str, Any]:
    return {"mediaType": media, "digest": f"sha256:{blob[0]}", "size": blob[1], **more}


def _tagged(descriptor: Mapping[str, Any], tag: str) -> dict[str, Any]:
    return {**descriptor, "annotations": {REF: tag}}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _add(blobs: Path, data: bytes) -> tuple[str, int]:
    digest = sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return digest, len(data)


def _copy(fd: int, blobs: Path) -> tuple[str, int]:
    hasher, size, temporary = sha256(), 0, blobs / ".part"
    with os.fdopen(fd, "rb", buffering=0) as source, temporary.open("wb") as target:
        while chunk := source.read(_CHUNK):
            hasher.update(chunk)
            target.write(chunk)
            size += len(chunk)
    os.replace(temporary, blobs / hasher.hexdigest())
    return hasher.hexdigest(), size


def _manifest(blobs: Path, descriptor: Mapping[str, Any]) -> dict[str, Any]:
    data = read_bounded(_blob(blobs, descriptor), limit=MAX_MANIFEST)
    if not hmac.compare_digest(f"sha256:{sha256(data).hexdigest()}", str(descriptor["digest"])):
        raise Tampered(f"expected the manifest {descriptor['digest']}, found other bytes")
    return _object(data)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("expected an OCI manifest as JSON") from None
    if not isinstance(value, dict):
        raise Malformed("expected an OCI manifest as an object")
    return value


def _files(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for layer in manifest["layers"]:
        name = layer.get("annotations", {}).get(TITLE)
        if not isinstance(name, str) or not is_safe_name(name):
            raise Malformed(f"expected a safe file name as title of a layer, got {str(name)[:80]!r}")
        yield name, layer


def _blob(blobs: Path, descriptor: Mapping[str, Any]) -> Path:
    digest = str(descriptor.get("digest"))
    if len(digest) != _DIGEST or not digest.startswith("sha256:") or not digest[7:].isalnum():
        raise Malformed(f"expected a SHA-256 digest in a descriptor, got {digest[:80]!r}")
    return blobs / digest[7:]


def _extract(blobs: Path, descriptor: Mapping[str, Any], place: Path, *, limit: int | None) -> int:
    place.parent.mkdir(parents=True, exist_ok=True)
    hasher, size = sha256(), 0
    with _blob(blobs, descriptor).open("rb") as source, place.open("xb") as target:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if limit is not None and size > limit:
                raise Oversized("expected a model within the bound on its size in the layout, found more")
            hasher.update(chunk)
            target.write(chunk)
    if not hmac.compare_digest(f"sha256:{hasher.hexdigest()}", str(descriptor["digest"])):
        place.unlink()
        raise Tampered(f"expected the blob {descriptor['digest']}, found other bytes", reason="file-changed")
    return size
