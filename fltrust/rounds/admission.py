"""Does a verified update count? The one decision that the coordinator and the grid share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from fltrust.errors import FltrustError, Refusal, UpdateRefused
from fltrust.identity import Digest, NodeId, SpiffeId
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.state import TrustState
from fltrust.rounds.types import Candidate, CohortMember
from fltrust.updates.receipt import AdmittedUpdate

RefusedList: TypeAlias = tuple[tuple[SpiffeId, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A candidate whose statements were verified: who says what, with which certificate.

    `instruction` and `update` are SHA-256 of the payloads, `instructed_by` the aggregator's certificate
    (None where the one who admits signed the instruction itself, as in the grid).
    """

    candidate: Candidate
    participant: SpiffeId
    node_id: NodeId
    instruction: Digest
    update: Digest
    content: Digest
    signed_at: datetime
    certificate: VerifiedCertificate
    instructed_by: VerifiedCertificate | None = None

    @property
    def entry(self) -> AdmittedUpdate:
        """How a receipt names it."""
        return AdmittedUpdate(
            participant=self.participant,
            node_id=self.node_id,
            update=self.update,
            content=self.content,
            certificate=self.certificate.fingerprint,
        )


def admit(
    offer: Offer,
    *,
    cohort: Mapping[SpiffeId, CohortMember],
    taken: Mapping[SpiffeId, Digest],
    state: TrustState,
) -> None:
    """Return only if this update counts in an open round, as of `state.epoch`; raise otherwise.

    Pure: the same arguments always give the same answer. A participant revoked at or before
    `state.epoch` is refused, even if it signed earlier.

    1. The participant is in the cohort, else ``wrong-participant``.
    2. It answers from the node and to the instruction of the cohort, else ``wrong-node`` or
       ``wrong-instruction``.
    3. Its certificate stands well (`TrustState.judge`), else ``revoked``, ``held``, ``unknown-identity``;
       and so does the certificate that signed the instruction.
    4. The node key of the cohort is still the one enrolled for it, else ``wrong-node``.
    5. It is the first of this participant (`taken` maps who was admitted to the update), else
       ``duplicate``.
    """
    # 1.
    member = cohort.get(offer.participant)
    if member is None:
        raise _refused(offer, "is not in the cohort of this round", Refusal.WRONG_PARTICIPANT)
    # 2.
    if offer.node_id != member.node_id:
        raise _refused(offer, "answers from another node than the cohort's", Refusal.WRONG_NODE)
    if offer.instruction != member.instruction:
        raise _refused(offer, "answers another instruction than the cohort's", Refusal.WRONG_INSTRUCTION)
    # 3.
    state.judge(offer.certificate)
    if offer.instructed_by is not None:
        state.judge(offer.instructed_by)
    # 4.
    known = state.identities.get(offer.participant)
    if known is None or known.node_key != member.node_key:
        raise _refused(offer, "was enrolled with another node key since", Refusal.WRONG_NODE)
    # 5.
    if offer.participant in taken:
        raise _refused(offer, "gave more than one update", Refusal.DUPLICATE)


def admit_all(
    offers: Iterable[Offer], *, cohort: Mapping[SpiffeId, CohortMember], state: TrustState
) -> tuple[tuple[Offer, ...], RefusedList]:
    """Sort offers, in order, into what counts and refusals; the very same one twice counts once."""
    admitted: list[Offer] = []
    refused: list[tuple[SpiffeId, str]] = []
    taken: dict[SpiffeId, Digest] = {}
    for offer in offers:
        if taken.get(offer.participant) == offer.update:
            continue
        try:
            admit(offer, cohort=cohort, taken=taken, state=state)
        except FltrustError as error:
            refused.append((offer.participant, error.reason))
        else:
            taken[offer.participant] = offer.update
            admitted.append(offer)
    return tuple(admitted), tuple(refused)


def _refused(offer: Offer, why: str, reason: Refusal) -> UpdateRefused:
    return UpdateRefused(f"{offer.participant} {why}", reason=reason)
