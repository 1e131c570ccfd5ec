"""URIs of keys: what they say is understood or refused, and no PIN is ever in one."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltrust.errors import FltrustError, Malformed, Refused
from fltrust.keys.homes import check_uri, home_of
from fltrust.keys.pkcs11_uri import MODULE_VARIABLE, Pkcs11Uri
from fltrust.keys.stored import MAGIC, uri_in
from fltrust.keys.tpm_uri import TpmUri, check_tcti

_TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs", "Cn", "Cf", "Co")), min_size=1
)


@given(token=_TEXT, label=st.none() | _TEXT, key=st.none() | st.binary(min_size=1, max_size=32))
def test_whatever_a_token_and_a_key_are_called_the_uri_reads_back(
    token: str, label: str | None, key: bytes | None
) -> None:
    uri = Pkcs11Uri(
        token=token, object=label, id=key, module_path="/usr/lib/x.so", pin_source="file:/run/pin"
    )
    text = str(uri)
    assert text.isascii()
    if len(text) <= 2048:
        assert Pkcs11Uri.parse(text) == uri


def test_the_examples_of_rfc_7512_that_name_a_token_are_read() -> None:
    uri = Pkcs11Uri.parse(
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;"
        "object=my-certificate;id=%69%95%3E%5C%F4%BD%EC%91;serial=1"
    )
    assert uri.token == "The Software PKCS#11 Softtoken"
    assert uri.manufacturer == "Snake Oil, Inc."
    assert uri.id == bytes.fromhex("69953e5cf4bdec91")


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:",
        "pkcs11:object=x",
        "pkcs11:token=",
        "pkcs11:token=a;token=b",
        "pkcs11:token=a;slot-id=1",
        "pkcs11:token=a;x-vendor=1",
        "pkcs11:token=a;type=cert",
        "pkcs11:token=a%2",
        "pkcs11:token=a%zz",
        "pkcs11:token=a b",
        "pkcs11:token=%ff",
        "pkcs11:token=%0a",
        "pkcs11:token=a?module-name=opensc",
        "pkcs11:token=a?module-path=relative.so",
        "pkcs11:token=a?pin-source=|cat%20/etc/shadow",
        "pkcs11:token=a?pin-source=https://pins.example",
        "pkcs11:token=a?pin-source=file:relative",
        "pkcs11:token=a?pin-source=env:A%20B",
        "PKCS11:token=a",
        "pkcs11:token=" + "a" * 3000,
        "tpm:",
        "tpm:file=relative",
        "tpm:file=/a;handle=0x81010001",
        "tpm:handle=0x01",
        "tpm:handle=0x40000001",
        "tpm:file=/a;tcti=cmd:sh",
        "tpm:file=/a;tcti=../evil.so",
        "file:relative",
        "file:/a?mode=1",
        "https://example.com/key",
        "",
    ],
)
def test_a_uri_that_says_something_else_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        check_uri(text)


@pytest.mark.parametrize("name", ["pin-value"])
@pytest.mark.parametrize(
    "place", ["pkcs11:token=a?{}=s3cr3t", "pkcs11:token=a;{}=s3cr3t", "tpm:file=/a;{}=s3cr3t"]
)
def test_a_pin_in_a_uri_is_refused_and_not_repeated(place: str, name: str) -> None:
    with pytest.raises(Refused) as refused:
        check_uri(place.format(name))
    assert refused.value.reason == "pin-in-uri"
    assert "s3cr3t" not in f"{refused.value!s}{refused.value!r}"


@given(st.text(string.printable, max_size=200))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for scheme in ("pkcs11:", "tpm:", "file:/", ""):
        try:
            check_uri(scheme + text)
        except FltrustError as error:
            refused = error.reason
        else:
            refused = "malformed"
        assert refused in ("malformed", "pin-in-uri")


def test_the_module_comes_from_the_uri_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Pkcs11Uri(token="a")
    monkeypatch.delenv(MODULE_VARIABLE, raising=False)
    with pytest.raises(Malformed):
        bare.module()
    monkeypatch.setenv(MODULE_VARIABLE, "relative.so")
    with pytest.raises(Malformed):
        bare.module()
    monkeypatch.setenv(MODULE_VARIABLE, "/usr/lib/x.so")
    assert bare.module() == "/usr/lib/x.so"
    assert Pkcs11Uri(token="a", module_path="/usr/lib/y.so").module() == "/usr/lib/y.so"


def test_a_tcti_that_would_run_something_is_refused() -> None:
    for text in ("cmd:tpm2_send", "libtss2-tcti-x.so", "device:relative", "pcap:device"):
        with pytest.raises(Malformed):
            check_tcti(text)
    assert check_tcti("device:/dev/tpmrm0") == "device:/dev/tpmrm0"
    assert home_of(str(TpmUri.parse("tpm:handle=0x81010001"))) == "tpm"


@pytest.mark.parametrize("tail", [b"", b"\n\n", b"\nmore\n", b"\n-----BEGIN PRIVATE KEY-----\n"])
def test_a_line_that_points_to_a_key_stands_alone(tail: bytes) -> None:
    with pytest.raises(Malformed):
        uri_in(MAGIC + b"tpm:handle=0x81010001" + tail)
    assert uri_in(MAGIC + b"tpm:handle=0x81010001\n") == "tpm:handle=0x81010001"
    assert uri_in(b"-----BEGIN PRIVATE KEY-----\n") is None
