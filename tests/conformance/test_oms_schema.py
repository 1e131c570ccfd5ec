"""What we sign keeps to the shapes of the OMS v1.0 specification, in which the predicate has two keys alone.

Written anew from the specification's text and its JSON Schemas for bundle, envelope, statement, predicate.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cases import new_desk, root_of, write_model
from jsonschema import Draft202012Validator, ValidationError

from fltrust.artifacts import sign
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.trustfile import TrustFile

TEXT = {"type": "string", "minLength": 1}
HEX = {"type": "string", "pattern": "^[0-9a-f]+$"}
NUMBER = {"type": "string", "pattern": "^[0-9]+$"}
RAW = {"type": "object", "required": ["rawBytes"], "properties": {"rawBytes": TEXT}}
RESOURCE = {
    "type": "object",
    "required": ["name", "digest", "algorithm"],
    "properties": {"name": TEXT, "digest": HEX, "algorithm": {"enum": ["sha256", "blake2b", "blake3"]}},
}
SERIALIZATION = {
    "type": "object",
    "required": ["method", "hash_type", "allow_symlinks"],
    "additionalProperties": False,
    "properties": {
        "method": {"const": "files"},
        "hash_type": {"enum": ["sha256", "blake2b", "blake3"]},
        "allow_symlinks": {"type": "boolean"},
        "ignore_paths": {"type": "array", "items": TEXT},
    },
}
PREDICATE = {
    "type": "object",
    "required": ["resources", "serialization"],
    "additionalProperties": False,
    "properties": {
        "resources": {"type": "array", "minItems": 1, "items": RESOURCE},
        "serialization": SERIALIZATION,
    },
}
SUBJECT = {
    "type": "object",
    "required": ["name", "digest"],
    "properties": {
        "name": TEXT,
        "digest": {"type": "object", "required": ["sha256"], "properties": {"sha256": HEX}},
    },
}
STATEMENT = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "additionalProperties": False,
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {"type": "array", "minItems": 1, "maxItems": 1, "items": SUBJECT},
        "predicateType": {"const": "https://model_signing/signature/v1.0"},
        "predicate": PREDICATE,
    },
}
ENVELOPE = {
    "type": "object",
    "required": ["payload", "payloadType", "signatures"],
    "additionalProperties": False,
    "properties": {
        "payload": TEXT,
        "payloadType": {"const": "application/vnd.in-toto+json"},
        "signatures": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["sig"],
                "additionalProperties": False,
                "properties": {"sig": TEXT, "keyid": {"type": ["string", "null"]}},
            },
        },
    },
}
PROOF = {
    "type": "object",
    "properties": {
        "logIndex": NUMBER,
        "treeSize": NUMBER,
        "rootHash": TEXT,
        "hashes": {"type": "array", "items": TEXT},
        "checkpoint": {"type": "object", "properties": {"envelope": TEXT}},
    },
}
ENTRY = {
    "type": "object",
    "properties": {
        "logIndex": NUMBER,
        "integratedTime": NUMBER,
        "canonicalizedBody": TEXT,
        "inclusionProof": PROOF,
    },
}
BUNDLE = {
    "type": "object",
    "required": ["mediaType", "verificationMaterial", "dsseEnvelope"],
    "additionalProperties": False,
    "properties": {
        "mediaType": {"type": "string", "pattern": "^application/vnd\\.dev\\.sigstore\\.bundle"},
        "dsseEnvelope": ENVELOPE,
        "verificationMaterial": {
            "type": "object",
            "required": ["certificate", "tlogEntries"],
            "properties": {
                "certificate": RAW,
                "tlogEntries": {"type": "array", "minItems": 1, "items": ENTRY},
                "timestampVerificationData": {"type": "object"},
            },
        },
    },
}


@pytest.mark.parametrize("kind", EntryKind)
@pytest.mark.parametrize("is_file", [False, True], ids=["directory", "file"])
def test_bundle_and_statement_keep_to_the_schemas(kind: EntryKind, is_file: bool, tmp_path: Path) -> None:
    statement, bundle = signed(tmp_path, kind, is_file=is_file)
    Draft202012Validator(BUNDLE).validate(bundle)
    Draft202012Validator(STATEMENT).validate(statement)


def test_names_are_in_order_each_once_and_below_the_top(tmp_path: Path) -> None:
    statement, _ = signed(tmp_path, EntryKind.HASHEDREKORD, is_file=False)
    names = [resource["name"] for resource in statement["predicate"]["resources"]]
    assert names == sorted(set(names))
    assert not any(name.startswith(("/", "./")) or ".." in name.split("/") for name in names)


def test_a_third_key_in_the_predicate_would_be_found(tmp_path: Path) -> None:
    statement, _ = signed(tmp_path, EntryKind.HASHEDREKORD, is_file=False)
    statement["predicate"]["fltrust"] = {}
    with pytest.raises(ValidationError, match="fltrust"):
        Draft202012Validator(STATEMENT).validate(statement)


def signed(folder: Path, kind: EntryKind, *, is_file: bool) -> tuple[dict, dict]:  # type: ignore[type-arg]
    model = folder / "weights.dat"
    if is_file:
        model.write_bytes(b"\x01" * 100)
    else:
        model = write_model(folder / "digits")
    desk = new_desk()
    made = sign(model, desk=desk, trust=TrustFile.parse(root_of(desk)), entry_kind=kind)
    bundle = json.loads(made.signature.read_text())
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"])), bundle
