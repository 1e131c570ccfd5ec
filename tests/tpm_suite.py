"""A TPM's evidence, with a software TPM and its manufacturer's CA.

`tests/clients/test_tpm_evidence.py` runs it in the environment that has the TSS's library; by its name it is
not collected here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from key_kinds import PIN, TpmKind, free_ports, run

sys.path.insert(0, str(Path(__file__).parent / "agent"))

from agent_federation import Federation

from fltrust.agent.evidence import tpm_prover
from fltrust.agent.join import join
from fltrust.agent.session import connect
from fltrust.enrollment.ek import verify_endorsement
from fltrust.enrollment.tpm import (
    TICKET_LIFE,
    TpmChecker,
    TpmDevice,
    TpmEvidence,
    TpmIntroduction,
    VerifiedTpm,
    qualifying_data,
)
from fltrust.enrollment.types import EnrollRequest, JoinToken
from fltrust.errors import Conflict, EvidenceRefused, FltrustError, Malformed, Oversized
from fltrust.identity import KeyId, Name, Role, SpiffeId
from fltrust.keys import generate
from fltrust.keys.homes import generate_key, open_key
from fltrust.keys.tpm import close_contexts, tpm_of
from fltrust.keys.tpm_attest import Attester, _attestation_template, endorsement_of
from fltrust.keys.tpm_uri import TpmUri
from fltrust.pki import create_csr

NOW = datetime.now(UTC) + timedelta(minutes=1)  # the TPM's maker certifies it after this was read


class ManufacturedTpm(TpmKind):
    """A software TPM with an endorsement certificate of a CA of its own."""

    def __init__(self, folder: Path) -> None:
        ca = folder / "ca"
        ca.mkdir()
        config, options, setup = (folder / name for name in ("ca.conf", "options", "setup.conf"))
        config.write_text(
            f"statedir = {ca}\nsigningkey = {ca}/key.pem\n"
            f"issuercert = {ca}/issuer.pem\ncertserial = {ca}/serial\n"
        )
        options.write_text("--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
        tool = "/usr/bin/swtpm_localca"
        setup.write_text(
            f"create_certs_tool={tool}\ncreate_certs_tool_config={config}\ncreate_certs_tool_options={options}\n"
        )
        state = folder / "state"
        state.mkdir()
        run("swtpm_setup", "--tpm2", "--tpmstate", state, "--create-ek-cert", "--config", setup)
        super().__init__(folder, free_ports())
        self.issuer_file = ca / "issuer.pem"
        self.issuer = x509.load_pem_x509_certificate(self.issuer_file.read_bytes())
        self.root = x509.load_pem_x509_certificate((ca / "swtpm-localca-rootca-cert.pem").read_bytes())

    def key(self, label: str) -> TpmUri:
        return TpmUri.parse(generate_key(self.uri(label)))


class Exchange:
    """The two messages of one site, in pieces that a test can change."""

    def __init__(self, tpm: ManufacturedTpm, label: str, checker: TpmChecker | None = None) -> None:
        self.uri = tpm.key(label)
        self.attester = Attester.of(self.uri)
        self.chain = (self.attester.certificate_der, tpm.issuer.public_bytes(Encoding.DER))
        self.checker = checker or checker_of(tpm)
        self.csr = create_csr(open_key(str(self.uri)))

    def challenge(self, at: datetime = NOW) -> TpmEvidence:
        given = self.checker.challenge(TpmIntroduction(self.chain, self.attester.attestation_key), now=at)
        proof = self.attester.prove(
            credential=given.credential,
            secret=given.secret,
            qualifying=qualifying_data(self.csr, given.ticket),
        )
        return TpmEvidence(
            given.ticket,
            proof.secret,
            self.attester.attestation_key,
            proof.certified_key,
            proof.attestation,
            proof.signature,
        )

    def examine(self, evidence: TpmEvidence, *, csr: bytes | None = None, at: datetime = NOW) -> object:
        return self.checker.examine(EnrollRequest(evidence, csr or self.csr), now=at)


def checker_of(tpm: ManufacturedTpm, *, name: str = "site-a") -> TpmChecker:
    device = TpmDevice(endorsement_of(tpm.tcti), Role.PARTICIPANT, Name(name))
    return TpmChecker(roots=[tpm.root], devices=[device])


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManufacturedTpm]:
    found = ManufacturedTpm(tmp_path_factory.mktemp("tpm"))
    yield found
    close_contexts()
    found.stop()


def test_a_site_joins_by_its_tpm_and_works_with_a_key_that_stays_in_it(
    tpm: ManufacturedTpm, tmp_path: Path
) -> None:
    federation = Federation(tmp_path, checkers=[checker_of(tpm)])
    try:
        root = federation.bundle.roots[0].public_bytes(Encoding.DER)
        where = JoinToken(federation.ports.bootstrap, federation.ports.address, root, b"")
        uri = tpm.key("joins")
        state = join(
            where,
            home=federation.home,
            key=open_key(str(uri)),
            prove=tpm_prover(where, uri, [tpm.issuer_file]),
        )
        who = SpiffeId(federation.bundle.domain, Role.PARTICIPANT, Name("site-a"))
        assert state.spiffe_id == who
        assert (state.folder / "identity.pem").read_bytes().startswith(b"fltrust-key-v1 tpm:")
        with connect(state.folder) as (client, _):
            assert client.get_bundle().domain == who.domain
        assert federation.authority.enrollment(who).evidence == "tpm"
        again = tpm.key("again")
        with pytest.raises(Conflict):  # the name is taken: a TPM does not take it over
            join(
                where,
                tmp_path / "again",
                key=open_key(str(again)),
                prove=tpm_prover(where, again, [tpm.issuer_file]),
            )
    finally:
        federation.close()


def test_what_is_asked_for_is_what_earns_the_name(tpm: ManufacturedTpm) -> None:
    exchange = Exchange(tpm, "good")
    verified = exchange.examine(exchange.challenge())
    assert isinstance(verified, VerifiedTpm)
    approval = exchange.checker.approve(verified, tokens=None, now=NOW)  # type: ignore[arg-type]
    assert (approval.role, approval.name, approval.replace) == (Role.PARTICIPANT, "site-a", False)


def test_evidence_that_was_not_examined_earns_nothing(tpm: ManufacturedTpm) -> None:
    exchange = Exchange(tpm, "unexamined")
    with pytest.raises(Malformed):
        exchange.checker.approve(exchange.challenge(), tokens=None, now=NOW)  # type: ignore[arg-type]


def test_it_serves_no_other_request(tpm: ManufacturedTpm) -> None:
    """Whoever overhears the evidence has another key, in the same TPM or in a file."""
    exchange = Exchange(tpm, "overheard")
    evidence = exchange.challenge()
    for csr in (create_csr(generate()), create_csr(open_key(str(tpm.key("second"))))):
        with pytest.raises(EvidenceRefused) as refused:
            exchange.examine(evidence, csr=csr)
        assert refused.value.reason == "tpm-attestation"


def test_a_key_in_a_file_is_never_certified(tpm: ManufacturedTpm) -> None:
    """A statement about a key of the TPM, and a request with a key that is none of it."""
    exchange = Exchange(tpm, "software")
    exchange.csr = create_csr(generate())  # a fresh statement, about another key
    with pytest.raises(EvidenceRefused) as refused:
        exchange.examine(exchange.challenge())
    assert refused.value.reason == "tpm-attestation"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("ticket", "tpm-ticket"),
        ("secret", "tpm-secret"),
        ("attestation", "tpm-attestation"),
        ("signature", "tpm-attestation"),
        ("certified_key", "tpm-attestation"),
        ("attestation_key", "tpm-attestation-key"),
    ],
)
def test_a_flipped_bit_anywhere_is_refused(tpm: ManufacturedTpm, field: str, reason: str) -> None:
    exchange = Exchange(tpm, f"flip-{field}".replace("_", "-"))
    evidence = exchange.challenge()
    for place in range(0, len(getattr(evidence, field)), 5):
        changed = bytearray(getattr(evidence, field))
        changed[place] ^= 1
        with pytest.raises(FltrustError) as refused:
            exchange.examine(replace(evidence, **{field: bytes(changed)}))
        assert refused.value.reason == reason, place


@pytest.mark.parametrize("field", ["attestation", "signature", "certified_key", "attestation_key"])
def test_nothing_may_follow_a_structure(tpm: ManufacturedTpm, field: str) -> None:
    exchange = Exchange(tpm, f"tail-{field}".replace("_", "-"))
    evidence = exchange.challenge()
    with pytest.raises(EvidenceRefused):
        exchange.examine(replace(evidence, **{field: getattr(evidence, field) + b"\0"}))


def test_a_ticket_ends(tpm: ManufacturedTpm) -> None:
    exchange = Exchange(tpm, "late")
    evidence = exchange.challenge()
    with pytest.raises(EvidenceRefused) as refused:
        exchange.examine(evidence, at=NOW + TICKET_LIFE + timedelta(seconds=2))
    assert refused.value.reason == "tpm-ticket"


def test_a_ticket_of_another_coordinator_is_refused(tpm: ManufacturedTpm) -> None:
    exchange = Exchange(tpm, "elsewhere")
    evidence = exchange.challenge()
    exchange.checker = checker_of(tpm)
    with pytest.raises(EvidenceRefused) as refused:
        exchange.examine(evidence)
    assert refused.value.reason == "tpm-ticket"


def test_a_tpm_that_the_operator_does_not_know_is_not_challenged(tpm: ManufacturedTpm) -> None:
    stranger = TpmChecker(
        roots=[tpm.root], devices=[TpmDevice(KeyId("0" * 64), Role.PARTICIPANT, Name("site-a"))]
    )
    with pytest.raises(EvidenceRefused) as refused:
        Exchange(tpm, "stranger", stranger).challenge()
    assert refused.value.reason == "tpm-unknown"


def test_another_tpm_cannot_read_the_secret(tpm: ManufacturedTpm, tmp_path: Path) -> None:
    """A certificate is public: whoever shows somebody else's gets what only that TPM reads."""
    other = ManufacturedTpm(tmp_path)
    try:
        exchange = Exchange(other, "thief", checker_of(tpm))
        exchange.chain = Exchange(tpm, "owner").chain
        with pytest.raises(FltrustError) as refused:
            exchange.challenge()
        assert refused.value.reason == "key-unavailable"  # its own TPM's word
    finally:
        with tpm_of(other.tcti).lock:
            tpm_of(other.tcti).forget()
        other.stop()


def test_an_attestation_key_that_signs_anything_is_refused(tpm: ManufacturedTpm) -> None:
    """An unrestricted key signs a statement that somebody made up: 0xff, "TCG", and whatever follows."""
    from tpm2_pytss.tsskey import TSSPrivKey

    from fltrust.keys.tpm_shapes import signing_template

    exchange = Exchange(tpm, "unrestricted")
    loose = tpm_of(tpm.tcti).run(lambda held: TSSPrivKey.create(held.context, signing_template()))
    with pytest.raises(EvidenceRefused) as refused:
        exchange.checker.challenge(TpmIntroduction(exchange.chain, bytes(loose.public.marshal())), now=NOW)
    assert refused.value.reason == "tpm-attestation-key"


@pytest.mark.parametrize("dropped", ["FIXEDTPM", "FIXEDPARENT", "SENSITIVEDATAORIGIN", "RESTRICTED"])
def test_an_attestation_key_that_could_leave_is_refused(tpm: ManufacturedTpm, dropped: str) -> None:
    from tpm2_pytss import TPM2B_PUBLIC, TPMA_OBJECT

    exchange = Exchange(tpm, f"drop-{dropped.lower()}")
    public, _ = TPM2B_PUBLIC.unmarshal(exchange.attester.attestation_key)
    public.publicArea.objectAttributes = int(_attestation_template().objectAttributes) & ~int(
        getattr(TPMA_OBJECT, dropped)
    )
    with pytest.raises(EvidenceRefused) as refused:
        exchange.checker.challenge(TpmIntroduction(exchange.chain, bytes(public.marshal())), now=NOW)
    assert refused.value.reason == "tpm-attestation-key"


def test_a_maker_that_is_not_trusted_is_refused(tpm: ManufacturedTpm, tmp_path: Path) -> None:
    chain = Exchange(tpm, "maker").chain
    other = ManufacturedTpm(tmp_path)
    other.stop()
    for roots in ([], [other.root]):
        with pytest.raises(EvidenceRefused) as refused:
            verify_endorsement(chain, roots=roots, at=NOW)
        assert refused.value.reason == "tpm-endorsement"


def test_the_issuer_of_a_maker_is_no_endorsement_and_a_root_alone_is_none(tpm: ManufacturedTpm) -> None:
    root = tpm.root.public_bytes(Encoding.DER)
    for chain in ([tpm.issuer.public_bytes(Encoding.DER)], [root], [root, root]):
        with pytest.raises(EvidenceRefused):
            verify_endorsement(chain, roots=[tpm.root], at=NOW)


def test_a_leaf_of_a_maker_s_that_is_no_endorsement_is_refused(tpm: ManufacturedTpm) -> None:
    """Signed by a CA that we trust for TPMs, for a key that is in no TPM."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "maker")])
    root = _certificate(name, name, ca_key.public_key(), ca_key, ca=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = _certificate(x509.Name([]), name, key.public_key(), ca_key, ca=False)
    with pytest.raises(EvidenceRefused) as refused:
        verify_endorsement([plain.public_bytes(Encoding.DER)], roots=[root], at=NOW)
    assert refused.value.reason == "tpm-endorsement"


def test_an_endorsement_certificate_out_of_time_is_refused(tpm: ManufacturedTpm) -> None:
    chain = Exchange(tpm, "time").chain
    with pytest.raises(EvidenceRefused):
        verify_endorsement(chain, roots=[tpm.root], at=NOW - timedelta(days=3650))


def test_what_is_not_a_certificate_and_what_is_too_large_is_refused(tpm: ManufacturedTpm) -> None:
    with pytest.raises(Malformed):
        verify_endorsement([b"\x30\x00"], roots=[tpm.root], at=NOW)
    with pytest.raises(Oversized):
        verify_endorsement([bytes(10_000)], roots=[tpm.root], at=NOW)
    with pytest.raises(Malformed):
        verify_endorsement([], roots=[tpm.root], at=NOW)
    with pytest.raises(Oversized):
        TpmIntroduction((b"x",), bytes(4_000))


def test_the_key_has_a_password_that_nobody_else_knows(tpm: ManufacturedTpm) -> None:
    assert PIN not in repr(Exchange(tpm, "password").challenge())


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: object, signer: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    from fltrust.pki.profiles import key_usage

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(key_usage(key_cert_sign=ca, digital_signature=not ca), critical=True)
        .sign(signer, SHA256())
    )
