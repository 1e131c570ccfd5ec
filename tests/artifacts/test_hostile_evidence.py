"""What an attacker tries: a trust file of several domains, words that bind nothing, and sheer size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from signed_world import RELEASE, SignedWorld, safetensors

from fltrust.artifacts import signing
from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.policy import Policy
from fltrust.artifacts.recipe import VerifiedModel, verify
from fltrust.artifacts.safetensors import MAX_HEADER_BYTES, parse_header
from fltrust.artifacts.status import Status, TaintedAggregate
from fltrust.artifacts.trustfile import TrustFile
from fltrust.errors import EvidenceMissing, Oversized, PolicyNotMet, Tampered, UntrustedSigner
from fltrust.identity import Epoch, Role, RunId, SpiffeId, TrustDomain
from fltrust.pki import Issuer
from fltrust.testing.desk import DOMAIN, ScratchDesk

OTHER = TrustDomain("other.example")


@pytest.fixture
def world(tmp_path: Path) -> SignedWorld:
    return SignedWorld.make(tmp_path)


def trust_of_both(first: ScratchDesk, second: ScratchDesk) -> TrustFile:
    """The first one's trust file, which trusts all that the second does as well."""
    mine, theirs = TrustFile.parse(first.trust_file()), TrustFile.parse(second.trust_file())
    lists = ("certificateAuthorities", "ctlogs", "tlogs", "timestampAuthorities")
    joined = {name: [*mine.trusted_root[name], *theirs.trusted_root[name]] for name in lists}  # type: ignore[misc]
    return replace(mine, trusted_root={**mine.trusted_root, **joined})


@contextmanager
def an_issuer_that_covers_everybody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(Issuer, "check_covers", lambda *_: None)
        yield


def verified(world: SignedWorld, trust: TrustFile, **options: Any) -> VerifiedModel:
    options.setdefault("identity", RELEASE)
    return verify(world.model, trust=trust, at=world.desk.clock.now(), **options)


def test_an_authority_of_another_domain_cannot_vouch_for_our_names(
    world: SignedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = ScratchDesk(domain=OTHER, caller=SpiffeId.of(DOMAIN, Role.SIGNER, "release"))
    trust = trust_of_both(world.desk, evil)
    world.sign()
    stated = SigstoreBundle.parse(world.signature.read_bytes()).envelope.payload
    with an_issuer_that_covers_everybody(monkeypatch):
        world.signature.write_bytes(evil.sign(stated))
    with pytest.raises(UntrustedSigner) as caught:
        verified(world, trust)
    assert caught.value.reason == "certificate-path"


def test_each_domain_of_a_trust_file_vouches_for_its_own_names(world: SignedWorld) -> None:
    theirs = ScratchDesk(domain=OTHER)
    trust = trust_of_both(world.desk, theirs)
    world.sign()
    assert verified(world, trust).is_accepted
    signing.sign(world.model, desk=theirs, trust=trust)
    assert verified(world, trust, identity=f"spiffe://{OTHER}/signer/release").is_accepted


def test_the_status_of_another_domain_is_none_of_the_signers(world: SignedWorld) -> None:
    theirs = ScratchDesk(domain=OTHER)
    now = world.desk.clock.now()
    world.desk.status = Status(domain=DOMAIN, epoch=Epoch(7), at=now)
    trust = trust_of_both(world.desk, theirs)
    signing.sign(world.model, desk=theirs, trust=trust)
    options = {"identity": f"spiffe://{OTHER}/signer/release"}
    assert any("says nothing of" in warning for warning in verified(world, trust, **options).warnings)
    for policy in (Policy(require_status=True), Policy(max_status_age=timedelta(days=1))):
        with pytest.raises(EvidenceMissing) as caught:
            verified(world, trust, policy=policy, **options)
        assert caught.value.reason == "status-missing"


def test_a_status_that_is_yet_to_come_is_not_fresh(world: SignedWorld) -> None:
    now = world.desk.clock.now()
    world.sign()
    world.desk.status = Status(domain=DOMAIN, epoch=Epoch(7), at=now + timedelta(days=3650))
    with pytest.raises(PolicyNotMet) as caught:
        world.verify(policy=Policy(max_status_age=timedelta(days=1)))
    assert caught.value.reason == "status-stale"


def test_a_signature_that_names_no_tensors_and_no_lineage_leaves_taint_open(world: SignedWorld) -> None:
    tainted = TaintedAggregate(world.tensors, RunId(1), 1, True)
    world.desk.status = Status(
        domain=DOMAIN, epoch=Epoch(7), at=world.desk.clock.now(), tainted_aggregates=(tainted,)
    )
    world.sign(with_tensors=False)
    assert any("tainted is not known" in warning for warning in world.verify().warnings)


def test_a_small_file_holds_the_tensors_that_are_stated_for_it(
    world: SignedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a signer could give any bytes the lineage of a clean aggregate."""
    clean = build_manifest(world.model).tensors
    world.record_lineage()
    world.model.write_bytes(safetensors(b"\x00\x00\x00@" * 4))
    lied = replace(build_manifest(world.model), tensors=clean)
    monkeypatch.setattr(signing, "build_manifest", lambda *_, **__: lied)
    world.sign()
    with pytest.raises(Tampered) as caught:
        world.verify(policy=Policy(require_lineage=True))
    assert caught.value.reason == "file-changed"


@pytest.mark.parametrize("piece", [b"{},", b"[],", b'"a",', b"1,"])
def test_a_signature_of_very_many_values_is_refused_before_it_is_parsed(
    world: SignedWorld, piece: bytes
) -> None:
    with pytest.raises(Oversized, match="values"):
        SigstoreBundle.parse(b"[" + piece * 20_000 + b"1]")


def test_a_safetensors_header_of_very_many_values_is_refused_before_it_is_parsed() -> None:
    text = b'{"__metadata__":[' + b"{}," * 2_100_000 + b"{}]}"
    assert len(text) < MAX_HEADER_BYTES
    with pytest.raises(Oversized, match="values"):
        parse_header(len(text).to_bytes(8, "little") + text, file_size=8 + len(text))
