"""Names parse only from what they are, and print what they parsed from."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltrust.errors import Malformed
from fltrust.identity import Digest, Epoch, KeyId, Name, NodeId, Role, RunId, Serial, SpiffeId, TrustDomain

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(labels, labels, st.sampled_from([Role.PARTICIPANT, Role.AGGREGATOR, Role.OPERATOR]))
def test_a_spiffe_id_reads_back_as_itself(domain: str, name: str, role: Role) -> None:
    spiffe_id = SpiffeId.of(f"{domain}.example", role, name)
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@given(st.text(max_size=60))
def test_any_text_is_a_spiffe_id_of_ours_or_malformed(text: str) -> None:
    with suppress(Malformed):
        assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize(
    "uri",
    [
        "https://hospitals.example/participant/a",
        "spiffe://hospitals.example",
        "spiffe://hospitals.example/",
        "spiffe://hospitals.example/participant",
        "spiffe://hospitals.example/participant/",
        "spiffe://hospitals.example/participant/a/b",
        "spiffe://hospitals.example/participant/a/",
        "spiffe://hospitals.example/participant/A",
        "spiffe://hospitals.example/participant/a\n",
        "spiffe://HOSPITALS.example/participant/a",
        "spiffe://user@hospitals.example/participant/a",
        "spiffe://hospitals.example:8443/participant/a",
        "spiffe://hospitals.example/participant/..",
        "spiffe://hospitals.example/participant/%61",
        "spiffe://hospitals.example/participant/a?x",
        "spiffe://hospitals.example/coordinator/a",
        "spiffe://hospitals.example/root/a",
        "spiffe://" + "a" * 600 + "/participant/a",
    ],
)
def test_what_is_not_exactly_one_of_our_spiffe_ids_is_malformed(uri: str) -> None:
    with pytest.raises(Malformed):
        SpiffeId.parse(uri)


def test_the_coordinator_has_no_name_and_serves_under_its_role() -> None:
    coordinator = SpiffeId.of("hospitals.example", Role.COORDINATOR)
    assert str(coordinator) == "spiffe://hospitals.example/coordinator"
    assert coordinator.dns_name == "coordinator.hospitals.example"
    assert (
        SpiffeId.of("hospitals.example", Role.AGGREGATOR, "main").dns_name
        == "main.aggregator.hospitals.example"
    )


@pytest.mark.parametrize("name", ["", "-a", "a-", "a.b", "a_b", "a b", "ä", "a" * 64, "a\n", "../x"])
def test_a_name_is_one_lower_case_dns_label(name: str) -> None:
    with pytest.raises(Malformed):
        Name(name)


@pytest.mark.parametrize("domain", ["", ".", "a..b", "a.", "A.example", "a b", "a" * 129, "a.example\n"])
def test_a_trust_domain_is_lower_case_dns_labels(domain: str) -> None:
    with pytest.raises(Malformed):
        TrustDomain(domain)


def test_numbers_out_of_range_are_malformed() -> None:
    for kind, value in [
        (Epoch, -1),
        (Epoch, 2**63),
        (Serial, 0),
        (Serial, 2**159),
        (RunId, 2**64),
        (NodeId, -1),
    ]:
        with pytest.raises(Malformed):
            kind(value)


def test_a_serial_reads_what_openssl_prints() -> None:
    assert Serial.parse("0A:1B").hex.endswith("0a1b")
    assert Serial.parse(Serial(2**158).hex) == 2**158
    with pytest.raises(Malformed):
        Serial.parse("0x1f")


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_reads_back_as_itself(value: bytes) -> None:
    assert Digest.parse(str(Digest("sha256", value))) == Digest("sha256", value)


@pytest.mark.parametrize(
    "text", ["sha256", "sha256:", "sha256:zz", "SHA256:" + "00" * 32, "sha256:" + "00" * 65]
)
def test_a_malformed_digest_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Digest.parse(text)


def test_a_key_id_is_64_hex_digits() -> None:
    assert KeyId.of_spki(b"spki") == KeyId(KeyId.of_spki(b"spki"))
    with pytest.raises(Malformed):
        KeyId("AB" * 32)
