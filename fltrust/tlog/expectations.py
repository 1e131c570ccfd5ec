"""Which certificates somebody expects in a log (TOML), and whether one found there is expected.

    strict = true                    # a name that stands nowhere below is an alert, too

    [[expect]]
    name = "spiffe://hospitals.example/participant/site-a"    # or a pattern: "spiffe://…/participant/*"
    roles = ["participant"]          # for patterns over roles
    issuers = ["issuing-ca.pem"]     # who may have issued it: certificates in PEM, beside this file
    keys = ["9f86…"]                 # SHA-256 of the public key (SPKI); key-ids of our own keys
    keys-file = "keys.txt"           # the same, one on each line
    certificates = ["sha256:9f86…"]  # fingerprints

A certificate without a SPIFFE ID, such as a timestamp authority's or OCSP responder's, goes by its subject
(``"CN=fltrust timestamp authority *,O=hospitals.example"``). A CA certificate is never expected. What is
left out is not asked for. A certificate is expected if one of the tables for its name allows it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import Digest, KeyId, Role, SpiffeId
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.tlog.entries import CertificateLeaf, ParticipantCertificate, PrecertificateLeaf

LoggedCertificate = CertificateLeaf | PrecertificateLeaf | ParticipantCertificate

_MAX_FILE = 1024 * 1024
_MAX_TABLES = 10_000
_KEYS = frozenset({"name", "roles", "issuers", "keys", "keys-file", "certificates"})


@dataclass(frozen=True, slots=True)
class Expectation:
    """One table of the file. A part that is None was left out."""

    pattern: str
    roles: frozenset[Role] | None = None
    issuers: tuple[x509.Certificate, ...] | None = None
    keys: frozenset[KeyId] | None = None
    certificates: frozenset[Digest] | None = None

    def is_for(self, name: str) -> bool:
        """Whether the pattern matches: ``*`` and ``?`` stand for anything within one segment."""
        wanted, found = self.pattern.split("/"), name.split("/")
        return len(wanted) == len(found) and all(map(fnmatchcase, found, wanted))


@dataclass(frozen=True, slots=True)
class Unexpected:
    """Why a logged certificate is not one that was expected."""

    kind: str
    """``unexpected-certificate``, ``unlisted-name`` or ``unreadable-certificate``."""
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Expectations:
    tables: tuple[Expectation, ...] = ()
    strict: bool = False

    def judge(self, leaf: LoggedCertificate) -> Unexpected | None:
        """None if the certificate is expected, or nobody here cares; else what is wrong with it."""
        try:
            facts = _Facts.of(leaf)
        except Malformed as error:
            return Unexpected("unreadable-certificate", "", error.message)
        if facts.is_authority:  # it could issue certificates for any name, and nobody here would see them
            return Unexpected("unexpected-certificate", facts.name, "a certificate of an authority")
        tables = [table for table in self.tables if table.is_for(facts.name)]
        if not tables:
            if not self.strict:
                return None
            return Unexpected(
                "unlisted-name", facts.name, f"a certificate for {facts.name}, which is not on the list"
            )
        faults = [_fault(table, facts) for table in tables]
        if None in faults:
            return None
        return Unexpected(
            "unexpected-certificate",
            facts.name,
            f"a certificate for {facts.name} that nobody expects: {'; '.join(filter(None, faults))}",
        )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a logged certificate says; a part that its entry does not show is None."""

    name: str
    fingerprint: Digest | None
    key: KeyId | None
    certificate: x509.Certificate | None = None
    issuer_key_hash: bytes | None = None
    is_authority: bool = False

    @classmethod
    def of(cls, leaf: LoggedCertificate) -> _Facts:
        if isinstance(leaf, ParticipantCertificate):
            return cls(leaf.name, leaf.certificate, None)
        read = leaf.read()
        name, key, is_ca = _name_of(read), KeyId.of_spki(_spki_of(read)), _is_authority(read)
        if isinstance(leaf, PrecertificateLeaf):
            return cls(name, None, key, issuer_key_hash=leaf.issuer_key_hash, is_authority=is_ca)
        return cls(name, leaf.fingerprint, key, certificate=read, is_authority=is_ca)


def load_expectations(path: Path) -> Expectations:
    """Read an expectations file; `Malformed` names the table and the key that is wrong."""
    try:
        value = tomllib.loads(read_bounded(path, limit=_MAX_FILE).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise Malformed(f"expected TOML in {path}: {str(error)[:200]}") from None
    tables, strict = value.pop("expect", []), value.pop("strict", False)
    if value or not isinstance(strict, bool) or not isinstance(tables, list) or len(tables) > _MAX_TABLES:
        raise Malformed(f"expected 'strict' (true or false) and tables [[expect]] in {path}, got others")
    return Expectations(
        tuple(_table(item, path.parent, f"{path}, table {n}") for n, item in enumerate(tables, 1)), strict
    )


def _fault(table: Expectation, facts: _Facts) -> str | None:
    if table.roles is not None and _role_of(facts.name) not in table.roles:
        return f"its role is none of {', '.join(sorted(table.roles))}"
    if table.issuers is not None and not any(_is_issuer(issuer, facts) for issuer in table.issuers):
        return "none of the expected issuers issued it"
    if table.keys is not None and facts.key not in table.keys:
        return "its key is not an expected one" if facts.key else "its entry does not show its key"
    if table.certificates is not None and facts.fingerprint not in table.certificates:
        return (
            "its fingerprint is not an expected one"
            if facts.fingerprint
            else "its entry does not show it whole"
        )
    return None


def _is_issuer(issuer: x509.Certificate, facts: _Facts) -> bool:
    if facts.issuer_key_hash is not None:
        return facts.issuer_key_hash == sha256(_spki_of(issuer)).digest()
    if facts.certificate is None:
        return False
    try:
        facts.certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *PARSE_ERRORS):
        return False
    return True


def _name_of(certificate: x509.Certificate) -> str:
    """Its SPIFFE ID; of a certificate that has no URI at all (a timestamp authority's), its subject."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except PARSE_ERRORS:
        raise Malformed("a certificate whose alternative names cannot be read") from None
    if len(uris) > 1:
        raise Malformed(f"a certificate with {len(uris)} URIs, where one SPIFFE ID is expected")
    if uris:
        return str(SpiffeId.parse(uris[0]))
    try:
        return certificate.subject.rfc4514_string()[:512]
    except PARSE_ERRORS:
        raise Malformed("a certificate whose subject cannot be read") from None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    except PARSE_ERRORS:
        raise Malformed("a certificate whose basic constraints cannot be read") from None


def _spki_of(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except PARSE_ERRORS:
        raise Malformed("a certificate whose key cannot be read") from None


def _role_of(name: str) -> Role | None:
    return SpiffeId.parse(name).role if name.startswith("spiffe://") else None


def _table(item: object, folder: Path, where: str) -> Expectation:
    if not isinstance(item, dict) or not set(item) <= _KEYS or not isinstance(item.get("name"), str):
        raise Malformed(f"expected 'name' and of {', '.join(sorted(_KEYS))} in {where}, got something else")
    pattern = item["name"]
    if not pattern.startswith(("spiffe://", "pseudonym:", "CN=")) or len(pattern) > 512:
        raise Malformed(
            f"expected a SPIFFE ID, a pseudonym or a subject (CN=…) in {where}, got {pattern[:80]!r}"
        )
    roles, issuers = _texts(item, "roles", where), _texts(item, "issuers", where)
    keys, certificates = _texts(item, "keys", where), _texts(item, "certificates", where)
    if "keys-file" in item:
        if not isinstance(item["keys-file"], str):
            raise Malformed(f"expected the name of a file as 'keys-file' in {where}")
        text = read_bounded(folder / item["keys-file"], limit=_MAX_FILE).decode("utf-8", "replace")
        keys = [*(keys or ()), *text.split()]
    try:
        return Expectation(
            pattern,
            None if roles is None else frozenset(map(Role, roles)),
            None if issuers is None else tuple(c for name in issuers for c in _certificates(folder / name)),
            None if keys is None else frozenset(map(KeyId, keys)),
            None if certificates is None else frozenset(map(Digest.parse, certificates)),
        )
    except (ValueError, Malformed) as error:
        raise Malformed(f"{where}: {str(error)[:300]}") from None


def _texts(item: Mapping[str, object], key: str, where: str) -> Sequence[str] | None:
    value = item.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise Malformed(f"expected a list of texts as {key!r} in {where}, got something else")
    return value


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_bounded(path, limit=_MAX_FILE))
    except ValueError:
        raise Malformed(f"expected certificates in PEM in {path}, found something else") from None
