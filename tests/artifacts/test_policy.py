"""Policies: read strictly, with the documented defaults."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from fltrust.artifacts import policy as module
from fltrust.artifacts.identity import IdentityRule, require_identity
from fltrust.artifacts.policy import Mode, OnTaint, Policy
from fltrust.errors import Malformed, UntrustedSigner
from fltrust.identity import Digest

WITNESS = "witness.example/one+af4de89c+BKZL2f1bbQzQOzqdO4OD9RHs3ZLkSVw5tqLY0kW7lKUB"
SAME_KEY = "witness.example/two+73cadfbf+BKZL2f1bbQzQOzqdO4OD9RHs3ZLkSVw5tqLY0kW7lKUB"


def test_an_empty_policy_is_the_default_policy() -> None:
    data = b"version = 1\n"
    assert Policy.from_toml(data) == replace(Policy(), digest=Digest.sha256_of(data))


def test_the_policy_in_the_docstring_is_one_and_says_the_defaults() -> None:
    text = re.search(r"    version = 1.*?\n\n(?=The values)", module.__doc__ or "", re.DOTALL)
    assert text is not None
    shown = "\n".join(line[4:] for line in text[0].splitlines())
    without = re.sub(r"(?m)^(witnesses|aggregators|max-age|identity|\[\[signers).*$", "", shown)
    data = without.encode()
    assert Policy.from_toml(data) == replace(Policy(), digest=Digest.sha256_of(data))


def test_every_key_is_read() -> None:
    found = Policy.from_toml(
        f"""
        version = 1
        mode = "advisory"
        [[signers]]
        identity = "spiffe://hospitals.example/signer/*"
        [[signers]]
        identity = "alice@hospital.example"
        issuer = "https://accounts.example"
        [evidence]
        log = false
        timestamp = true
        witnesses = ["{WITNESS}"]
        min-witnesses = 1
        [lineage]
        required = true
        aggregators = ["spiffe://hospitals.example/aggregator/main"]
        min-participants = 3
        min-rounds = 5
        app-hashes = ["{"ab" * 32}"]
        [status]
        required = true
        max-age = "7d"
        tainted = "warn"
        [content]
        pickles = false
        formats = ["safetensors", ".JSON"]
        max-size = 1000
        """.encode()
    )
    assert found.mode is Mode.ADVISORY
    assert [rule.identity for rule in found.signers] == [
        "spiffe://hospitals.example/signer/*",
        "alice@hospital.example",
    ]
    assert (found.require_log, found.require_timestamp) == (False, True)
    assert (found.witnesses, found.min_witnesses) == ((WITNESS,), 1)
    assert (found.require_lineage, found.min_participants, found.min_rounds) == (True, 3, 5)
    assert found.app_hashes == {"ab" * 32}
    assert found.aggregators == (IdentityRule("spiffe://hospitals.example/aggregator/main"),)
    assert (found.require_status, found.max_status_age) == (True, timedelta(days=7))
    assert found.on_taint is OnTaint.WARN
    assert not found.allow_pickles
    assert found.formats == {".safetensors", ".json"}
    assert found.max_size == 1000


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "version"),
        ("version = 2", "version"),
        ("version = true", "version"),
        ("version = 1\nmode = 'loud'", "mode"),
        ("version = 1\nmod = 1", "'mod'"),
        ("version = 1\n[lineage]\nmin-round = 1", "'min-round'"),
        ("version = 1\n[lineage]\nmin-rounds = -1", "min-rounds"),
        ("version = 1\n[lineage]\nmin-rounds = true", "min-rounds"),
        ("version = 1\n[lineage]\nmin-rounds = 1.5", "min-rounds"),
        ("version = 1\n[lineage]\napp-hashes = ['xyz']", "app-hashes"),
        ("version = 1\n[lineage]\naggregators = 'x'", "aggregators"),
        ("version = 1\n[evidence]\nlog = 'yes'", "log"),
        ("version = 1\n[evidence]\nmin-witnesses = 1", "witnesses"),
        (f"version = 1\n[evidence]\nwitnesses = ['{WITNESS}', '{SAME_KEY}']", "twice"),
        ("version = 1\n[status]\nmax-age = '7 days'", "max-age"),
        ("version = 1\n[content]\nformats = ['a/b']", "formats"),
        ("version = 1\nevidence = 3", "evidence"),
        ("version = 1\nsigners = 3", "signers"),
        ("version = 1\n[[signers]]\nname = 'x'", "identity"),
        ("version = 1\n[[signers]]\nidentity = 'spiffe://a.example/signer/x'\nmore = 1", "'more'"),
        ("version = 1\n[[signers]]\nidentity = 'alice@a.example'", "issuer"),
        ("version = 1\nversion = 1", "TOML"),
        ("x" * 300_000, "bytes"),
    ],
)
def test_a_policy_that_cannot_be_read_names_what_is_wrong(text: str, named: str) -> None:
    with pytest.raises(Malformed) as caught:
        Policy.from_toml(text.encode())
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "signer", "is_match"),
    [
        ("spiffe://a.example/signer/*", "spiffe://a.example/signer/release", True),
        ("spiffe://a.example/signer/*", "spiffe://a.example/signer/a/b", False),
        ("spiffe://a.example/signer/*", "spiffe://a.example/signer/", False),
        ("spiffe://a.example/signer/*", "spiffe://aXexample/signer/release", False),
        ("spiffe://a.example/signer/*-prod", "spiffe://a.example/signer/x-prod", True),
        ("spiffe://a.example/*/release", "spiffe://a.example/signer/release", True),
        ("spiffe://a.example/signer/release", "spiffe://a.example/signer/release2", False),
        ("spiffe://a.example/signer/release", "spiffe://a.example/signer/release\n", False),
    ],
)
def test_a_star_stands_for_characters_of_one_segment(pattern: str, signer: str, is_match: bool) -> None:
    assert IdentityRule(pattern).matches(signer, "spiffe://a.example") is is_match


def test_the_issuer_of_a_spiffe_id_is_its_trust_domain_unless_named() -> None:
    rule = IdentityRule("spiffe://a.example/signer/x")
    assert not rule.matches("spiffe://a.example/signer/x", "https://accounts.example")
    assert not rule.matches("spiffe://a.example/signer/x", None)
    other = IdentityRule("spiffe://a.example/signer/x", "https://accounts.example")
    assert other.matches("spiffe://a.example/signer/x", "https://accounts.example")


@pytest.mark.parametrize(
    "pattern",
    [
        "spiffe://*/signer/x",
        "spiffe://a.example",
        "spiffe://a.example/",
        "spiffe://a.example/a?b",
        "",
        "x" * 600,
    ],
)
def test_a_pattern_that_would_say_too_much_is_malformed(pattern: str) -> None:
    with pytest.raises(Malformed):
        IdentityRule(pattern, "https://accounts.example" if not pattern.startswith("spiffe") else None)


def test_a_star_in_another_name_is_a_star() -> None:
    rule = IdentityRule("*@hospital.example", "https://accounts.example")
    assert not rule.matches("alice@hospital.example", "https://accounts.example")
    with pytest.raises(UntrustedSigner, match="alice"):
        require_identity((rule,), "alice@hospital.example", "https://accounts.example")
