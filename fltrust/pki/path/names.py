"""Distinguished names, compared as RFC 5280, section 7.1, wants it: by what they say, not by their bytes."""

from __future__ import annotations

import unicodedata
from typing import TypeAlias

from cryptography import x509

RdnKey: TypeAlias = frozenset[tuple[str, str | bytes]]
NameKey: TypeAlias = tuple[RdnKey, ...]
"""A name in the form that is compared: two names are the same if their keys are equal."""

MAX_ATTRIBUTES = 64
"""Attributes in a name; one with more raises ``ValueError``."""


def name_key(name: x509.Name) -> NameKey:
    """Give the form of a name in which equal names are equal.

    Text is compared without regard to case, string type, and how much white space stands between words
    (RFC 4518, cut to NFKC and case folding); any other value by its bytes.
    """
    if sum(len(rdn) for rdn in name.rdns) > MAX_ATTRIBUTES:
        raise ValueError("a name of too many attributes")
    return tuple(rdn_key(rdn) for rdn in name.rdns)


def rdn_key(rdn: x509.RelativeDistinguishedName) -> RdnKey:
    return frozenset((attribute.oid.dotted_string, _folded(attribute.value)) for attribute in rdn)


def is_within(name: NameKey, base: NameKey) -> bool:
    """Whether `name` lies in the subtree that begins at `base`."""
    return name[: len(base)] == base


def _folded(value: str | bytes) -> str | bytes:
    if isinstance(value, bytes):
        return value
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())
