"""Whatever is done to a signature, it is refused with a reason, and nothing but our own errors comes out."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from signed_world import EntryKind, SignedWorld, safetensors

from fltrust.artifacts.bundle import MAX_TIMESTAMP, SigstoreBundle
from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.evidence import Trust, VerifiedStatement, verify_bundle
from fltrust.artifacts.policy import Policy
from fltrust.artifacts.recipe import load_trust
from fltrust.artifacts.status import Status
from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.trustroot import parse_trusted_root
from fltrust.errors import FltrustError, Malformed
from fltrust.tlog.merkle import MAX_PROOF
from fltrust.tlog.ports import MAX_ENTRY

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

Path_ = tuple[str | int, ...]


class Forge:
    """Two signatures of one signer in one log, and edits of the first."""

    def __init__(self, folder: Path, kind: EntryKind) -> None:
        folder.mkdir()
        self.world = SignedWorld.make(folder)
        self.world.desk.tree.append(b"something else")
        self.world.sign(entry_kind=kind)
        self.data = self.world.signature.read_bytes()
        other = SignedWorld.make(folder, name="other.safetensors", data=safetensors(b"\x00\x00\x00@" * 4))
        other.desk = self.world.desk
        other.desk.clock.advance(_SECOND)  # type: ignore[attr-defined]
        other.sign(entry_kind=kind)
        self.other = json.loads(other.signature.read_bytes())
        self.trust: Trust = load_trust(self.world.desk.trust_file())
        self.good = verify_bundle(self.data, trust=self.trust)
        self.value = json.loads(self.data)
        self.leaves = [path for path, value in _walk(self.value) if not isinstance(value, dict | list)]
        self.nodes = [path for path, _ in _walk(self.value) if path]

    def edited(self, path: Path_, new: object) -> bytes:
        value = json.loads(self.data)
        parent = _at(value, path[:-1])
        if new is _GONE:
            del parent[path[-1]]
        else:
            parent[path[-1]] = new
        return json.dumps(value).encode()

    def outcome(self, data: bytes) -> VerifiedStatement | FltrustError:
        try:
            return verify_bundle(data, trust=self.trust)
        except FltrustError as error:
            return error


_GONE = object()

_SECOND = timedelta(seconds=1)


def _walk(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _walk(item, (*path, key))


def _at(value: Any, path: Path_) -> Any:
    for key in path:
        value = value[key]
    return value


@pytest.fixture(scope="module", params=list(EntryKind))
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("forge") / "one", request.param)


_SETTINGS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_SETTINGS
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(forge: Forge, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(forge.leaves))
    text = _at(forge.value, path)
    raw = _binary(text)
    if raw is not None:
        changed = bytearray(raw)
        changed[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        new = base64.b64encode(bytes(changed)).decode()
    else:
        at = data.draw(st.integers(0, len(text) - 1))
        new = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
    found = forge.outcome(forge.edited(path, new))
    if path[-1] == "envelope" and isinstance(found, VerifiedStatement):
        # Another key's line, whose name was changed: nobody known signed it, so it is passed over.
        assert found == forge.good
        return
    assert isinstance(found, FltrustError), path


def test_every_field_that_is_left_out_is_missed(forge: Forge) -> None:
    may_go = {
        # What is left says the same: there is another verified time, or a signature more than needed.
        ("verificationMaterial", "timestampVerificationData"),
        ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps"),
        ("verificationMaterial", "timestampVerificationData", "rfc3161Timestamps", 0),
    }
    has_promise = "inclusionPromise" in forge.value["verificationMaterial"]["tlogEntries"][0]
    for path in forge.nodes:
        found = forge.outcome(forge.edited(path, _GONE))
        if has_promise and (path in may_go or path[-1] in ("inclusionPromise", "integratedTime")):
            if isinstance(found, VerifiedStatement):
                assert found.payload == forge.good.payload
            continue
        assert isinstance(found, FltrustError), path


def test_every_field_of_another_type_is_malformed(forge: Forge) -> None:
    for path in forge.nodes:
        for new in (7, True, [], {}, "", "A", ["x"], {"x": 1}, "é", "\x00", "\ud800"):
            if new == _at(forge.value, path):
                continue
            found = forge.outcome(forge.edited(path, new))
            assert isinstance(found, FltrustError) or found == forge.good or _is_optional(path, new), path


def test_every_field_of_another_signature_is_refused(forge: Forge) -> None:
    """Both are by one signer, with one log: what is the same in both may be exchanged, and nothing else."""
    for path in forge.nodes:
        theirs = _at(forge.other, path) if _has(forge.other, path) else None
        if theirs is None or theirs == _at(forge.value, path):
            continue
        found = forge.outcome(forge.edited(path, theirs))
        assert isinstance(found, FltrustError), path


def test_every_field_that_stands_twice_is_malformed(forge: Forge) -> None:
    text = forge.data.decode()
    keys = {path[-1] for path in forge.nodes if isinstance(path[-1], str)}
    for key in keys:
        at = text.index(f'"{key}":')
        doubled = f'{text[:at]}"{key}":null,{text[at:]}'
        assert isinstance(forge.outcome(doubled.encode()), Malformed), key


def test_a_field_that_the_format_does_not_name_is_malformed(forge: Forge) -> None:
    for path, value in _walk(forge.value):
        if isinstance(value, dict):
            assert isinstance(forge.outcome(forge.edited((*path, "more"), 1)), Malformed), path


def test_every_list_with_one_thing_twice_is_refused(forge: Forge) -> None:
    for path, value in _walk(forge.value):
        if isinstance(value, list):
            found = forge.outcome(forge.edited(path, value + value[:1]))
            assert isinstance(found, FltrustError), path


def test_what_is_larger_than_its_bound_is_refused(forge: Forge) -> None:
    material = ("verificationMaterial",)
    entry: Path_ = (*material, "tlogEntries", 0)
    big = base64.b64encode(b"x" * (MAX_ENTRY + 1)).decode()
    for path, new in (
        ((*material, "certificate", "rawBytes"), base64.b64encode(b"x" * 20_000).decode()),
        ((*entry, "canonicalizedBody"), big),
        ((*entry, "inclusionProof", "hashes"), ["A" * 43 + "="] * (MAX_PROOF + 1)),
        ((*entry, "inclusionProof", "checkpoint", "envelope"), "x" * 70_000),
        ((*entry, "inclusionProof", "treeSize"), str(2**63)),
        ((*entry, "logIndex"), "9" * 30),
        (
            (*material, "timestampVerificationData", "rfc3161Timestamps", 0, "signedTimestamp"),
            base64.b64encode(b"x" * (MAX_TIMESTAMP + 1)).decode(),
        ),
        (
            (*material, "timestampVerificationData", "rfc3161Timestamps"),
            [{"signedTimestamp": base64.b64encode(b"%d" % n).decode()} for n in range(100)],
        ),
        ((*material, "tlogEntries"), [_at(forge.value, entry)] * 9),
        (("dsseEnvelope", "signatures", 0, "sig"), "A" * 400),
    ):
        assert isinstance(forge.outcome(forge.edited(path, new)), FltrustError), path


_PARSERS = (
    SigstoreBundle.parse,
    SignedEnvelope.from_json,
    TrustFile.parse,
    Policy.from_toml,
    Status.from_payload,
    parse_trusted_root,
)


@settings(max_examples=400, deadline=None)
@given(parser=st.sampled_from(_PARSERS), data=st.binary(max_size=400))
@example(parser=SigstoreBundle.parse, data=b"[" * 100_000)
@example(parser=TrustFile.parse, data=b'{"a":' * 50_000)
@example(parser=Policy.from_toml, data=b"a = " + b"[" * 20_000)
@example(parser=SigstoreBundle.parse, data=b'{"mediaType":1e999}')
@example(parser=SigstoreBundle.parse, data=b'"\\ud800"')
@example(parser=TrustFile.parse, data=b'{"type":"\\ud800"}')
@example(parser=SigstoreBundle.parse, data=b"9" * 5000)
def test_parsers_of_noise_raise_nothing_but_our_own(parser: Any, data: bytes) -> None:
    with contextlib.suppress(FltrustError):
        parser(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@_SETTINGS
@given(data=st.data())
def test_json_of_any_shape_in_any_place_raises_nothing_but_our_own(forge: Forge, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(forge.nodes))
    forge.outcome(forge.edited(path, data.draw(_JSON)))


def _binary(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if len(raw) > 8 else None


def _has(value: Any, path: Path_) -> bool:
    try:
        _at(value, path)
    except (KeyError, IndexError):
        return False
    return True


def _is_optional(path: Path_, new: object) -> bool:
    """An empty list is an absent one to protobuf: without a timestamp, the log's signed time is left."""
    return new in ([], {}) and "timestampVerificationData" in path
