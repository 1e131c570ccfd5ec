"""What the reference prints as worked values is what the code computes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fltrust import strictjson
from fltrust.artifacts import recipe
from fltrust.artifacts.oms import parse_statement
from fltrust.artifacts.policy import Policy
from fltrust.artifacts.provenance import Provenance
from fltrust.artifacts.tensors import SET_TYPE, RawTensor, manifest_of
from fltrust.identity import Digest
from fltrust.tlog.checkpoint import Checkpoint
from fltrust.tlog.entries import LogKind, kind_of, parse_entry
from fltrust.tlog.merkle import leaf_hash, node_hash
from fltrust.tlog.note import NoteKey, sign_note
from fltrust.tlog.ports import TreeHead

DOCS = Path(__file__).parents[2] / "docs" / "reference"


class _Key:
    _key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

    @property
    def public_key_raw(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def _worked(page: str, name: str) -> str:
    found = re.search(rf"<!-- worked:{name} -->\n```\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found, f"{page} has no worked values {name!r}"
    return found[1]


def _fields(text: str) -> dict[str, str]:
    return {line[:9].strip(): line[9:] for line in text.splitlines()}


def test_the_log_s_worked_tree_and_checkpoint_are_what_the_code_makes() -> None:
    said = _fields(_worked("transparency-log.md", "log"))
    entries = [said["entry 0"].encode(), said["entry 1"].encode()]
    for entry in entries:
        assert parse_entry(entry).encode() == entry
    leaves = [leaf_hash(entry) for entry in entries]
    assert [leaf.hex() for leaf in leaves] == [said["leaf 0"], said["leaf 1"]]
    root = node_hash(*leaves)
    assert root.hex() == said["root"]
    key = NoteKey("hospitals.example/log", _Key())
    assert str(key.verifier) == said["vkey"]
    note = sign_note(Checkpoint(key.name, TreeHead(2, root)).text, [key])
    assert note.decode() == _worked("transparency-log.md", "checkpoint")


def test_the_log_s_worked_approvals_are_what_the_code_makes() -> None:
    said = _fields(_worked("transparency-log.md", "approvals"))
    for number in ("0", "1"):
        entry = said[f"entry {number}"].encode()
        assert parse_entry(entry).encode() == entry
        assert leaf_hash(entry).hex() == said[f"leaf {number}"]
    assert Digest.sha256_of(b"0" * 32).hex in said["entry 0"]
    assert Digest.sha256_of(strictjson.encode({"epochs": ["7"]})).hex in said["entry 1"]


def test_the_worked_entries_about_keys_are_in_the_one_byte_form() -> None:
    entries = _worked("transparency-log.md", "keys").splitlines()
    kinds = [kind_of(parse_entry(entry.encode())) for entry in entries]
    assert kinds == [LogKind.KEY_USED, LogKind.KEY_DESTROYED]
    assert [parse_entry(entry.encode()).encode().decode() for entry in entries] == entries


def test_the_worked_tensor_set_is_what_the_code_makes() -> None:
    said = _fields(_worked("signed-models.md", "tensors"))
    tensors = [
        RawTensor("w", "F32", (2,), memoryview(bytes.fromhex("0000803f00000040"))),
        RawTensor("b", "F32", (), memoryview(bytes.fromhex("0000003f"))),
    ]
    made = manifest_of(tensors)
    assert (str(made.set), str(made.manifest)) == (said["set"], said["manifest"])
    by_name = [entry.to_json() for entry in sorted(made.tensors, key=lambda entry: entry.name)]
    assert strictjson.encode({"type": SET_TYPE, "tensors": by_name}).decode() == said["hashed"]


def test_the_reference_has_the_recipe_that_the_code_carries() -> None:
    page = (DOCS / "verification.md").read_text()
    written = re.search(r"<!-- recipe -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert written
    doc = recipe.__doc__ or ""
    assert written[1].strip() == doc[doc.index("1. Bounds") :].strip()


def test_the_reference_s_policy_is_read_and_has_the_defaults_that_it_states() -> None:
    page = (DOCS / "verification.md").read_text()
    written = re.search(r"<!-- policy -->\n```toml\n(.*?)```", page, re.DOTALL)
    assert written
    found = Policy.from_toml(written[1].encode())
    defaults = Policy()
    assert found.signers
    assert found.aggregators
    assert found.max_status_age == timedelta(days=7)
    assert replace(found, signers=(), aggregators=(), max_status_age=None, digest=defaults.digest) == defaults


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("model", lambda payload: parse_statement(payload).encode()),
        ("provenance", lambda payload: Provenance.from_payload(payload).to_payload()),
    ],
)
def test_a_worked_statement_is_read_and_has_the_digest_that_stands_beside_it(
    name: str, again: Callable[[bytes], bytes]
) -> None:
    page = (DOCS / "signed-models.md").read_text()
    found = re.search(rf"`([0-9a-f]{{64}})`:\n\n<!-- worked:{name} -->\n```json\n(.*?)```", page, re.DOTALL)
    assert found
    payload = strictjson.encode(json.loads(found[2]))
    assert again(payload) == payload
    assert Digest.sha256_of(payload).hex == found[1]
