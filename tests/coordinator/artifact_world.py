"""Signers and aggregators at work: certificates, statements, and what is recorded of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from authority_world import DOMAIN, Exchange, Member, World

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.evidence import Trust, VerifiedStatement, verify_bundle
from fltrust.artifacts.inputs import ModelInput, SealedIn, UpdateInput
from fltrust.artifacts.manifest import FileEntry, Manifest, TensorFile
from fltrust.artifacts.oms import LineageLink, ModelStatement
from fltrust.artifacts.ports import EntryKind, RoundFacts
from fltrust.artifacts.provenance import BuildType, Provenance
from fltrust.artifacts.tensors import TensorEntry, TensorManifest
from fltrust.artifacts.trustfile import TrustFile
from fltrust.identity import Digest, RunId
from fltrust.keys import FileSigner, generate
from fltrust.pki import create_csr
from fltrust.updates import Phase


def tensors_digest() -> Digest:
    return Digest("sha256", secrets.token_bytes(32))


def model_digest() -> Digest:
    return Digest("fltrust-model-v1", secrets.token_bytes(32))


def model_payload(
    name: str = "m.bin", *, link: LineageLink | None = None, weights: bytes | None = None
) -> bytes:
    """The statement about a model of one file; with `weights`, of one tensor of these bytes."""
    digest = Digest.sha256_of(weights if weights is not None else secrets.token_bytes(8)).value
    tensors = {} if weights is None else {".": TensorFile(b"\x00" * 32, tensors_of(weights))}
    manifest = Manifest((FileEntry(".", (digest,), 8),), (), tensors)
    return ModelStatement(name, manifest, lineage=link).encode()


def tensors_of(weights: bytes) -> TensorManifest:
    return TensorManifest((TensorEntry("w", "U8", (len(weights),), Digest.sha256_of(weights).value),))


@dataclass(frozen=True)
class Leaf:
    signer: FileSigner
    certificate: bytes


@dataclass(frozen=True)
class Recorded:
    """An aggregate that was recorded, as the next statement names it."""

    as_input: ModelInput
    bundle: bytes

    @property
    def link(self) -> LineageLink:
        """What a model says that comes from this aggregate, which has none before it."""
        place = self.as_input
        return LineageLink(
            aggregate=place.tensors,
            run_id=place.run_id,
            step=place.step,
            log_index=place.log_index,
            bundle=Digest.sha256_of(self.bundle),
            count=1,
        )


class Studio:
    """One aggregator, one signer, and sites that train."""

    def __init__(self, world: World, aggregator: Member, signer: Member) -> None:
        self.world = world
        self.aggregator = aggregator
        self.signer = signer

    def leaf(self, member: Member) -> Leaf:
        key = generate()
        return Leaf(key, self.world.session(member).certify_signer(create_csr(key))[0])

    def sign(
        self,
        member: Member,
        payload: bytes,
        *,
        leaf: Leaf | None = None,
        kind: EntryKind = EntryKind.HASHEDREKORD,
    ) -> bytes:
        """Sign and countersign a statement; the bundle."""
        leaf = leaf or self.leaf(member)
        envelope = SignedEnvelope.sign(payload, signer=leaf.signer).to_json()
        return self.world.session(member).countersign(envelope, leaf.certificate, entry_kind=kind)

    def verify(self, bundle: bytes) -> VerifiedStatement:
        """Offline, against the trust file of now."""
        data = self.world.session(self.signer).trust_file()
        return verify_bundle(bundle, trust=Trust.of(TrustFile.parse(data)))

    def seal(
        self, run: RunId, step: int, sites: list[Member], model: Digest, *, apart: timedelta = timedelta(0)
    ) -> RoundFacts:
        """A round that trains from `model` and admits all `sites`."""
        exchange = Exchange(self.world, self.aggregator, step=step, run=run)
        cohort = tuple(exchange.instruct(site, model=model) for site in sites)
        exchange.session.open_round(exchange.key, cohort)
        self.world.clock.advance(apart)
        exchange.seal(*(exchange.answer(site) for site in sites))
        return exchange.session.describe_round(run, step)

    def initial(self, run: RunId, **changes: Any) -> Provenance:
        now = self.world.clock.now()
        fields: dict[str, Any] = {
            "build_type": BuildType.INITIAL_MODEL,
            "domain": DOMAIN,
            "run_id": run,
            "step": 0,
            "round": 0,
            "phase": Phase.TRAIN,
            "tensors": tensors_digest(),
            "model": model_digest(),
            "app": None,
            "builder": self.aggregator.spiffe_id,
            "previous": None,
            "updates": (),
            "sealed": None,
            "started_at": now,
            "finished_at": now,
        }
        return Provenance(**fields | changes)

    def round_of(self, facts: RoundFacts, previous: ModelInput, **changes: Any) -> Provenance:
        """What an honest aggregator states of a sealed round."""
        fields: dict[str, Any] = {
            "build_type": BuildType.FEDERATED_ROUND,
            "domain": DOMAIN,
            "run_id": facts.run_id,
            "step": facts.step,
            "round": facts.round,
            "phase": Phase.TRAIN,
            "tensors": tensors_digest(),
            "model": model_digest(),
            "app": None,
            "builder": self.aggregator.spiffe_id,
            "previous": previous,
            "updates": tuple(UpdateInput.of(c) for c in facts.contributions),
            "sealed": SealedIn(facts.epoch, facts.receipt, facts.log_index),
            "started_at": facts.sealed_at,
            "finished_at": facts.sealed_at,
            "trained_from": None if facts.trained_from == previous.model else facts.trained_from,
        }
        return Provenance(**fields | changes)

    def replay_of(
        self, facts: RoundFacts, tainted: ModelInput, previous: ModelInput, *without: Member, **changes: Any
    ) -> Provenance:
        """The round again, as a run of its own, without some."""
        names = tuple(sorted(str(site.spiffe_id) for site in without))
        kept = tuple(UpdateInput.of(c) for c in facts.contributions if c.public_name not in names)
        fields: dict[str, Any] = {
            "build_type": BuildType.REPLAYED_ROUND,
            "run_id": RunId(secrets.randbits(63)),
            "updates": kept,
            "tainted": tainted,
            "without": names,
        }
        return self.round_of(facts, previous, **fields | changes)

    def record(self, said: Provenance, *, by: Member | None = None) -> Recorded:
        bundle = self.sign(by or self.aggregator, said.to_payload())
        index = SigstoreBundle.parse(bundle).entries[0].index
        return Recorded(said.as_input(log_index=index), bundle)

    def start(self, run: RunId, **changes: Any) -> Recorded:
        """Record a run's initial model."""
        return self.record(self.initial(run, **changes))

    def train(
        self, run: RunId, step: int, sites: list[Member], previous: Recorded, **changes: Any
    ) -> Recorded:
        """A round and its aggregate."""
        facts = self.seal(run, step, sites, previous.as_input.model)
        return self.record(self.round_of(facts, previous.as_input, **changes))

    def release(self, link: Recorded | None = None, **options: Any) -> int:
        """Sign a model; its place in the log."""
        payload = model_payload(link=None if link is None else self._link(link), **options)
        return SigstoreBundle.parse(self.sign(self.signer, payload)).entries[0].index

    def _link(self, recorded: Recorded) -> LineageLink:
        archive = self.world.session(self.signer)
        count = sum(1 for _ in archive.find_lineage(recorded.as_input.tensors))
        return replace(recorded.link, count=count)
