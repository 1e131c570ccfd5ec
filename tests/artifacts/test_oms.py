"""What is signed about a model: OMS's statement with our part in it, and other signers' without."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from fltrust import strictjson
from fltrust.artifacts.envelope import MAX_STATEMENT
from fltrust.artifacts.manifest import FileEntry, Manifest
from fltrust.artifacts.measuring import build_manifest, verify_files
from fltrust.artifacts.oms import (
    PREDICATE_TYPE,
    LineageLink,
    ModelStatement,
    parse_statement,
)
from fltrust.errors import FltrustError, Malformed, Oversized, StatementRefused, Tampered
from fltrust.identity import Digest, RunId

SHARD = 2**20
LINK = LineageLink(
    aggregate=Digest("sha256", b"a" * 32),
    run_id=RunId(2**64 - 1),
    step=3,
    log_index=17,
    bundle=Digest("sha256", b"b" * 32),
    count=4,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    top = tmp_path / "model"
    (top / "sub").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "sub" / "large.bin").write_bytes(bytes(range(256)) * 6_000)
    (top / "sub-a").write_bytes(b"a")
    (top / "zero").write_bytes(b"")
    (top / ".gitattributes").write_bytes(b"*.bin filter=lfs")
    save_file({"w": numpy.arange(4, dtype="f4"), "b": numpy.array(1, "i8")}, top / "m.safetensors")
    return top


def _json(statement: ModelStatement) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(statement.encode())
    return found


def _refused(value: dict[str, Any]) -> FltrustError:
    with pytest.raises(FltrustError) as caught:
        parse_statement(strictjson.encode(value))
    return caught.value


@pytest.mark.parametrize(
    ("what", "shard_bytes"),
    [
        *((what, None) for what in ("", "sub/large.bin", "m.safetensors", "zero")),
        *((what, SHARD) for what in ("", "sub/large.bin", "m.safetensors")),
    ],
)
def test_what_is_encoded_is_read_back(model: Path, what: str, shard_bytes: int | None) -> None:
    path = model / what
    manifest = build_manifest(path, shard_bytes=shard_bytes)
    statement = ModelStatement(path.name, manifest, ("cache",) if not what else (), LINK)

    found = parse_statement(statement.encode())

    assert found == statement
    assert found.is_ours
    verify_files(path, found.manifest)


def test_a_model_in_which_oms_sees_nothing_cannot_be_signed(model: Path) -> None:
    for manifest in (Manifest(()), build_manifest(model / "zero", shard_bytes=SHARD)):
        with pytest.raises(Malformed):
            ModelStatement("model", manifest).encode()


def test_resources_are_what_an_oms_verifier_finds(model: Path) -> None:
    value = _json(ModelStatement("model", build_manifest(model)))
    predicate = value["predicate"]

    assert [resource["name"] for resource in predicate["resources"]] == [
        "m.safetensors",
        "sub/large.bin",
        "sub-a",
        "zero",
    ]
    assert predicate["resources"][2] == {
        "name": "sub-a",
        "algorithm": "sha256",
        "digest": sha256(b"a").hexdigest(),
    }
    assert predicate["serialization"] == {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [
            ".git",
            ".gitattributes",
            ".github",
            ".gitignore",
            "model.lineage.jsonl",
            "model.sig",
        ],
    }
    assert [entry["name"] for entry in _ours(value)["unlisted"]] == [".gitattributes"]


def test_shards_are_named_by_their_bounds_and_their_size_is_an_integer(model: Path) -> None:
    statement = ModelStatement("model", build_manifest(model, shard_bytes=SHARD))
    value = _json(statement)
    predicate = value["predicate"]

    assert [resource["name"] for resource in predicate["resources"]] == [
        "m.safetensors:0:" + str((model / "m.safetensors").stat().st_size),
        "sub/large.bin:0:1048576",
        "sub/large.bin:1048576:1536000",
        "sub-a:0:1",
    ]
    assert {resource["algorithm"] for resource in predicate["resources"]} == {"sha256-sharded-1048576"}
    assert predicate["serialization"]["shard_size"] == SHARD
    assert type(predicate["serialization"]["shard_size"]) is int
    assert [entry["name"] for entry in _ours(value)["unlisted"]] == [".gitattributes", "zero"]


def test_a_model_of_one_file_is_the_resource_dot_and_ignores_nothing(model: Path) -> None:
    predicate = _json(ModelStatement("sub-a", build_manifest(model / "sub-a")))["predicate"]

    assert [resource["name"] for resource in predicate["resources"]] == ["."]
    assert "ignore_paths" not in predicate["serialization"]


def test_the_subject_is_the_digest_over_the_resources_digests(model: Path) -> None:
    statement = ModelStatement("model", build_manifest(model))
    value = _json(statement)

    digests = b"".join(bytes.fromhex(r["digest"]) for r in value["predicate"]["resources"])
    assert value["subject"] == [{"name": "model", "digest": {"sha256": sha256(digests).hexdigest()}}]
    assert statement.subject.value == sha256(digests).digest()


def test_files_that_oms_verifiers_pass_over_are_bound_by_us(model: Path) -> None:
    signed = parse_statement(ModelStatement("model", build_manifest(model)).encode())
    (model / ".gitattributes").write_bytes(b"changed")

    with pytest.raises(Tampered):
        verify_files(model, signed.manifest)


Change = Callable[[dict[str, Any]], object]


def _resource(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["predicate"]["resources"][1]
    return found


def _ours(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["predicate"]["resources"][0]["annotations"]["fltrust"]
    return found


def _tensor(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _ours(value)["tensors"]["m.safetensors"]["tensors"][0]
    return found


def _with_root(value: dict[str, Any]) -> None:
    digests = b"".join(bytes.fromhex(r["digest"]) for r in value["predicate"]["resources"])
    value["subject"][0]["digest"]["sha256"] = sha256(digests).hexdigest()


CHANGES: dict[str, Change] = {
    "another statement type": lambda v: v.update(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate": lambda v: v.update(predicateType="https://model_signing/Digests/v0.1"),
    "no subject": lambda v: v.update(subject=[]),
    "two subjects": lambda v: v["subject"].append(v["subject"][0]),
    "another subject": lambda v: v["subject"][0]["digest"].update(sha256="0" * 64),
    "a second digest of the subject": lambda v: v["subject"][0]["digest"].update(sha512="0" * 64),
    "a field beside the statement's": lambda v: v.update(extra=1),
    "a field beside the predicate's": lambda v: v["predicate"].update(extra=1),
    "a key beside ours in the predicate": lambda v: v["predicate"].update(fltrust=_ours(v)),
    "an annotation beside ours": lambda v: v["predicate"]["resources"][0]["annotations"].update(extra=1),
    "our part twice": lambda v: _resource(v).update(annotations={"fltrust": _ours(v)}),
    "a field beside ours": lambda v: _ours(v).update(extra=1),
    "a resource less": lambda v: (v["predicate"]["resources"].pop(), _with_root(v)),
    "a resource twice": lambda v: (v["predicate"]["resources"].append(_resource(v)), _with_root(v)),
    "resources in another order": lambda v: (v["predicate"]["resources"].reverse(), _with_root(v)),
    "a name that climbs": lambda v: _resource(v).update(name="../large.bin"),
    "an absolute name": lambda v: _resource(v).update(name="/large.bin"),
    "a name that is not plain": lambda v: _resource(v).update(name="sub/./large.bin"),
    "a name with a control character": lambda v: _resource(v).update(name="sub/\n"),
    "a name with a backslash": lambda v: _resource(v).update(name="sub\\large.bin"),
    "a name in another case": lambda v: _resource(v).update(name="ZERO"),
    "a sha512": lambda v: _resource(v).update(algorithm="sha512"),
    "a short digest": lambda v: _resource(v).update(digest="00" * 31),
    "a digest in capitals": lambda v: _resource(v).update(digest=_resource(v)["digest"].upper()),
    "a digest that is no text": lambda v: _resource(v).update(digest=3),
    "another field in a resource": lambda v: _resource(v).update(extra=1),
    "a resource that is no object": lambda v: v["predicate"].update(resources=["a"]),
    "blake3": lambda v: v["predicate"]["serialization"].update(hash_type="blake3"),
    "another method": lambda v: v["predicate"]["serialization"].update(method="tar"),
    "symlinks": lambda v: v["predicate"]["serialization"].update(allow_symlinks=True),
    "a path ignored silently": lambda v: v["predicate"]["serialization"]["ignore_paths"].append("x"),
    "our type": lambda v: _ours(v).update(type="urn:fltrust:model:v2"),
    "another files digest": lambda v: _ours(v).update(filesDigest="sha256:" + "0" * 64),
    "a size less": lambda v: _ours(v)["sizes"].pop(),
    "another size": lambda v: _ours(v)["sizes"].__setitem__(0, 5),
    "a negative size": lambda v: _ours(v)["sizes"].__setitem__(0, -1),
    "a size that is true": lambda v: _ours(v)["sizes"].__setitem__(2, True),
    "an unlisted file less": lambda v: _ours(v)["unlisted"].pop(),
    "an empty directory less": lambda v: _ours(v)["emptyDirectories"].pop(),
    "tensors of another file": lambda v: _ours(v)["tensors"].update(x=_ours(v)["tensors"].popitem()[1]),
    "another set": lambda v: _ours(v)["tensors"]["m.safetensors"].update(set="sha256:" + "0" * 64),
    "another manifest": lambda v: _ours(v)["tensors"]["m.safetensors"].update(manifest="sha256:" + "0" * 64),
    "another header": lambda v: _ours(v)["tensors"]["m.safetensors"].update(header="sha1:" + "0" * 40),
    "a tensor's name": lambda v: _tensor(v).update(name="other"),
    "a tensor's dtype": lambda v: _tensor(v).update(dtype="F128"),
    "a tensor's shape": lambda v: _tensor(v).update(shape=[-1]),
    "a shape that is text": lambda v: _tensor(v).update(shape="4"),
    "a tensor's digest": lambda v: _tensor(v).update(sha256="0" * 64),
    "no lineage field": lambda v: _ours(v).pop("lineage"),
    "a lineage without a run": lambda v: _ours(v)["lineage"].pop("runId"),
    "a run id as a number": lambda v: _ours(v)["lineage"].update(runId=1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_statement_with_any_part_changed_is_refused(model: Path, change: str) -> None:
    value = _json(ModelStatement("model", build_manifest(model), (), LINK))
    CHANGES[change](value)

    error = _refused(value)

    assert isinstance(error, (Malformed, Oversized, StatementRefused)), error
    assert error.hint != ""


def test_the_same_statement_in_other_bytes_is_refused(model: Path) -> None:
    payload = ModelStatement("model", build_manifest(model)).encode()

    for other in (payload + b" ", json.dumps(json.loads(payload)).encode(), b"\xef\xbb\xbf" + payload):
        with pytest.raises(Malformed):
            parse_statement(other)


def test_keys_that_stand_twice_are_refused_in_anybody_s_statement(model: Path) -> None:
    payload = _theirs(model).replace(b'"_type":', b'"_type":"x","_type":', 1)

    with pytest.raises(Malformed, match="twice"):
        parse_statement(payload)


def test_a_statement_past_the_bound_is_not_parsed() -> None:
    with pytest.raises(Oversized):
        parse_statement(b" " * (MAX_STATEMENT + 1))


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"\xff", b"[" * 10_000, b'{"_type":1}'])
def test_what_is_no_statement_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        parse_statement(payload)


# -- other signers -----------------------------------------------------------------------------------------


def _theirs(model: Path, *, shard: float | None = None, **serialization: Any) -> bytes:
    """As another OMS signer writes it: any JSON, no sizes, git's files ignored, a float for the shards."""
    names = sorted((p for p in model.rglob("*") if p.is_file()), key=lambda p: p.relative_to(model).parts)
    resources, root = [], sha256()
    for path in names:
        name, data = path.relative_to(model).as_posix(), path.read_bytes()
        if name == ".gitattributes":
            continue
        step = int(shard) if shard else max(len(data), 1)
        for at in range(0, max(len(data), 0 if shard else 1), step):
            digest = sha256(data[at : at + step])
            root.update(digest.digest())
            resources.append(
                {
                    "name": f"{name}:{at}:{min(at + step, len(data))}" if shard else name,
                    "algorithm": f"sha256-sharded-{step}" if shard else "sha256",
                    "digest": digest.hexdigest(),
                }
            )
    described = {
        "method": "shards" if shard else "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": ["model.sig", ".git", ".gitattributes", "sub"],
        **({"shard_size": shard} if shard else {}),
        **serialization,
    }
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "their model", "digest": {"sha256": root.hexdigest()}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"serialization": described, "resources": resources},
        },
        indent=2,
    ).encode()


def test_another_signer_s_statement_is_read_and_its_files_verified(model: Path) -> None:
    statement = parse_statement(_theirs(model))

    assert not statement.is_ours
    assert statement.manifest.empty_directories is None
    assert {entry.size for entry in statement.manifest.files} == {None}
    verify_files(model, statement.manifest, ignore=[".gitattributes"])
    (model / "sub" / "large.bin").write_bytes(b"")
    with pytest.raises(Tampered):
        verify_files(model, statement.manifest, ignore=[".gitattributes"])


def test_what_another_signer_ignored_counts_as_added(model: Path) -> None:
    statement = parse_statement(_theirs(model))

    assert "sub" in statement.ignored
    with pytest.raises(Tampered) as caught:
        verify_files(model, statement.manifest)
    assert caught.value.reason == "file-added"


@pytest.mark.parametrize("shard", [1_000_000, 1_000_000.0])
def test_another_signer_s_shards_are_read_whole_numbers_as_floats_too(model: Path, shard: float) -> None:
    (model / "zero").unlink()  # which has no shard
    statement = parse_statement(_theirs(model, shard=shard))

    assert statement.manifest.shard_bytes == 1_000_000
    verify_files(model, statement.manifest, ignore=[".gitattributes"])


@pytest.mark.parametrize("size", [0, -1, 1.5, "1", True, 2**60])
def test_shards_of_no_size_are_refused(model: Path, size: object) -> None:
    with pytest.raises(Malformed):
        parse_statement(_theirs(model, method="shards", shard_size=size))


@pytest.mark.parametrize(
    "names",
    [
        ["a:0:4", "a:8:12"],
        ["a:0:4", "a:0:4"],
        ["a:0:3", "a:3:4"],
        ["a:0:5"],
        ["a:0:0"],
        ["a:4:8"],
        ["a:0:4", "b:0:4", "a:4:8"],
        ["a:0"],
        ["a:0:4:5"],
        ["a:00:4"],
        ["a:0:-4"],
        [":0:4"],
        ["a:0:99999999999999999"],
    ],
)
def test_shards_that_do_not_cover_their_file_are_refused(names: list[str]) -> None:
    resources = [{"name": n, "algorithm": "sha256-sharded-4", "digest": "00" * 32} for n in names]
    value = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": sha256(bytes(32 * len(names))).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "shards", "hash_type": "sha256", "shard_size": 4},
            "resources": resources,
        },
    }
    assert isinstance(_refused(value), Malformed)


def test_a_digest_that_is_not_known_here_is_told_apart_from_a_broken_statement(model: Path) -> None:
    with pytest.raises(StatementRefused) as caught:
        parse_statement(_theirs(model, hash_type="blake2b"))

    assert caught.value.reason == "unknown-type"


def test_a_manifest_keeps_its_names_in_order_and_once() -> None:
    first, second = FileEntry("a", (bytes(32),), 0), FileEntry("b", (bytes(32),), 0)
    Manifest((first, second))
    for files in ((second, first), (first, first)):
        with pytest.raises(Malformed):
            Manifest(files)
    with pytest.raises(Malformed):
        Manifest((first,), ("b", "a"))


@pytest.mark.parametrize("name", ["a/b", "", "..", "new\nline", "x" * 2_000])
def test_a_model_s_name_is_one_plain_name(name: str) -> None:
    with pytest.raises(Malformed):
        ModelStatement(name, Manifest(()))
