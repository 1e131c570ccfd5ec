"""Foreign trust domains on the wire."""

from __future__ import annotations

from dataclasses import dataclass

from fltrust.enrollment.foreign import MAX_LENT, BundleProfile, ForeignDomain
from fltrust.identity import Name
from fltrust.wire.enrollment import bundle_from_pb, bundle_to_pb
from fltrust.wire.pb import federation_pb2 as pb
from fltrust.wire.values import at_most, present, word

MAX_DOMAINS = 64


@dataclass(frozen=True, slots=True)
class ShownDomain:
    """A foreign domain as a caller is shown it: `record.lent` is told to operators alone."""

    record: ForeignDomain
    is_held: bool


def domain_to_pb(record: ForeignDomain, *, is_held: bool, with_lent: bool) -> pb.ForeignDomain:
    return pb.ForeignDomain(
        bundle=bundle_to_pb(record.bundle),
        address=record.address,
        endpoint_url=record.endpoint_url,
        profile=record.profile.value,
        endpoint_spiffe_id=record.endpoint_spiffe_id or "",
        lent=sorted(record.lent) if with_lent else (),
        is_held=is_held,
        has_ended=record.has_ended,
    )


def domain_from_pb(message: pb.ForeignDomain) -> ShownDomain:
    present(message, "bundle")
    at_most(message.lent, MAX_LENT, what="participants that are lent")
    record = ForeignDomain(
        bundle=bundle_from_pb(message.bundle),
        address=message.address,
        endpoint_url=message.endpoint_url,
        profile=word(BundleProfile, message.profile, what="a bundle endpoint's profile"),
        endpoint_spiffe_id=message.endpoint_spiffe_id or None,
        lent=frozenset(map(Name, message.lent)),
        has_ended=message.has_ended,
    )
    return ShownDomain(record, message.is_held)


def domains_from_pb(message: pb.ListForeignDomainsResponse) -> tuple[ShownDomain, ...]:
    at_most(message.domains, MAX_DOMAINS, what="foreign domains")
    return tuple(map(domain_from_pb, message.domains))
