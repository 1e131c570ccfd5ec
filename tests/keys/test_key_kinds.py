"""One suite for every kind of key: the same promises, wherever the key lies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from key_kinds import KINDS, WRONG_PIN, Kind, KmsKind, made, run

from fltrust.errors import Conflict, FltrustError, Malformed, NotFound, Refused, Unavailable
from fltrust.keys import verify_signature
from fltrust.keys.homes import destroy_key, generate_key, home_of, open_key
from fltrust.keys.stored import load, save
from fltrust.keys.usage import CountedSigner
from fltrust.pki import create_csr, parse_csr


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    with made(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


def test_a_key_that_was_made_signs_and_openssl_verifies_it(kind: Kind, tmp_path: Path) -> None:
    signer = open_key(generate_key(kind.uri("openssl")))
    (tmp_path / "data").write_bytes(b"an update")
    (tmp_path / "signature").write_bytes(signer.sign(b"an update"))
    pem = signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    said = run(
        "openssl", "dgst", "-sha256", "-verify", tmp_path / "key.pem",
        "-signature", tmp_path / "signature", tmp_path / "data",
    )  # fmt: skip
    assert said.strip() == "Verified OK"


def test_the_uri_that_is_given_back_opens_the_same_key(kind: Kind) -> None:
    uri = generate_key(kind.uri("same"))
    assert home_of(uri) == kind.name
    assert open_key(uri).key_id == open_key(uri).key_id
    assert open_key(generate_key(kind.uri("other"))).key_id != open_key(uri).key_id


def test_its_csr_is_one_that_we_take(kind: Kind) -> None:
    signer = open_key(generate_key(kind.uri("csr")))
    assert parse_csr(create_csr(signer)) == signer.public_key


def test_many_threads_sign_with_it_at_once(kind: Kind) -> None:
    signer = CountedSigner(open_key(generate_key(kind.uri("threads"))), name="threads")
    failures: list[Exception] = []

    def sign(number: int) -> None:
        try:
            for turn in range(10):
                data = b"%d of %d" % (turn, number)
                verify_signature(signer.public_key, signer.sign(data), data)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert signer.counter.total == 80


def test_a_long_message_is_signed_whole(kind: Kind) -> None:
    signer = open_key(generate_key(kind.uri("long")))
    data = bytes(range(256)) * 64
    if isinstance(kind, KmsKind):
        # moto hashes a digest once more, AWS does not: what it gives does not verify, and is thrown away.
        with pytest.raises(Unavailable) as refused:
            signer.sign(data)
        assert refused.value.reason == "key-unavailable"
        return
    verify_signature(signer.public_key, signer.sign(data), data)


def test_a_key_is_never_made_over_another(kind: Kind) -> None:
    before = open_key(generate_key(kind.uri("twice"))).key_id
    with pytest.raises((Conflict, Refused)) as refused:
        generate_key(kind.uri("twice"))
    assert refused.value.reason == "key-exists"
    assert open_key(kind.uri("twice")).key_id == before


def test_a_wrong_pin_is_refused_and_the_next_one_works(kind: Kind) -> None:
    if not kind.has_pin:
        pytest.skip("who may use it is said by its service, which is not here")
    generate_key(kind.uri("pin"))
    wrong = kind.uri("pin", pin=kind.secret(WRONG_PIN))
    kind.lose()
    if kind.name == "pkcs11":
        from fltrust.keys.pkcs11_module import close_sessions

        close_sessions()  # whoever is logged in already is not asked
    for _ in range(12):  # more than a token bears: it is not asked again
        with pytest.raises(Refused) as refused:
            open_key(wrong)
        assert refused.value.reason in ("pin-wrong", "passphrase-wrong")
        assert WRONG_PIN not in str(refused.value)
    open_key(kind.uri("pin")).sign(b"it is not locked")


def test_a_pin_that_is_missing_is_said(kind: Kind) -> None:
    if not kind.has_pin:
        pytest.skip("it has none")
    generate_key(kind.uri("empty"))
    empty = kind.secret("")
    if kind.name == "pkcs11":
        from fltrust.keys.pkcs11_module import close_sessions

        close_sessions()
    with pytest.raises(Refused) as refused:
        open_key(kind.uri("empty", pin=empty))
    assert refused.value.reason == "pin-missing"


def test_a_pin_that_others_can_read_is_refused(kind: Kind) -> None:
    if not kind.has_pin:
        pytest.skip("it has none")
    generate_key(kind.uri("exposed"))
    exposed = kind.secret("48161")
    exposed.chmod(0o644)
    if kind.name == "pkcs11":
        from fltrust.keys.pkcs11_module import close_sessions

        close_sessions()
    with pytest.raises(Refused) as refused:
        open_key(kind.uri("exposed", pin=exposed))
    assert refused.value.reason == "key-file-exposed"


def test_a_key_that_is_not_there_is_said_to_be_gone(kind: Kind) -> None:
    with pytest.raises(NotFound) as refused:
        open_key(kind.uri("never"))
    assert refused.value.reason == "key-gone"


def test_a_key_that_is_taken_away_signs_no_more(kind: Kind) -> None:
    uri = generate_key(kind.uri("taken"))
    signer = open_key(uri)
    signer.sign(b"still there")
    kind.remove(uri)
    if kind.name == "file":
        with pytest.raises(NotFound):  # one that was opened is in memory
            open_key(uri)
        return
    if isinstance(kind, KmsKind):
        pytest.skip("moto signs with what is to be deleted, KMS does not: test_key_kms.py says what then")
    with pytest.raises(NotFound) as refused:
        signer.sign(b"gone")
    assert refused.value.reason == "key-gone"


def test_a_session_that_is_lost_is_opened_again(kind: Kind) -> None:
    signer = open_key(generate_key(kind.uri("lost")))
    signer.sign(b"before")
    kind.lose()
    verify_signature(signer.public_key, signer.sign(b"after"), b"after")


def test_its_use_is_counted_and_so_are_its_failures(kind: Kind) -> None:
    uri = generate_key(kind.uri("counted"))
    signer = CountedSigner(open_key(uri), name="issuing")
    for turn in range(3):
        signer.sign(b"%d" % turn)
    use = signer.counter.look()
    assert (use.name, use.home, use.since_last, use.total, use.failed) == ("issuing", kind.name, 3, 3, 0)
    signer.counter.told(use)
    signer.sign(b"one more")
    assert (signer.counter.look().since_last, signer.counter.total) == (1, 4)
    if kind.name in ("file", "awskms"):  # in memory; and moto goes on
        return
    kind.remove(uri)
    with pytest.raises(FltrustError):
        signer.sign(b"gone")
    assert (signer.counter.look().since_last, signer.counter.look().failed) == (1, 1)


def test_a_folder_remembers_where_it_lies(kind: Kind, tmp_path: Path) -> None:
    signer = open_key(generate_key(kind.uri("stored")))
    save(signer, tmp_path / "issuing.key", passphrase=b"of the folder")
    assert load(tmp_path / "issuing.key", passphrase=b"of the folder").key_id == signer.key_id
    assert (tmp_path / "issuing.key").stat().st_mode & 0o777 == 0o600
    written = (tmp_path / "issuing.key").read_bytes()
    assert written.startswith(b"-----BEGIN ENCRYPTED" if kind.name == "file" else b"fltrust-key-v1 ")


def test_a_key_is_destroyed_once_and_for_all(kind: Kind) -> None:
    uri = generate_key(kind.uri("destroyed"))
    done = destroy_key(uri)
    assert done.was_there
    if isinstance(kind, KmsKind):  # it keeps a key for seven days, in which it is there and signs nothing
        assert done.gone_at is not None
        assert destroy_key(uri) == done
        return
    assert done.gone_at is None
    with pytest.raises(NotFound):
        open_key(uri)
    assert not destroy_key(uri).was_there


def test_a_pin_in_the_uri_is_refused_and_not_repeated(kind: Kind) -> None:
    separator = ";" if kind.name == "tpm" else "&"
    uri = kind.uri("leaky")
    with pytest.raises(Refused) as refused:
        open_key(f"{uri}{separator}pin-value=s3cr3t")
    assert refused.value.reason == "pin-in-uri"
    assert "s3cr3t" not in str(refused.value)


def test_what_a_uri_says_and_we_do_not_understand_is_refused(kind: Kind) -> None:
    separator = ";" if kind.name == "tpm" else "&"
    with pytest.raises(Malformed):
        open_key(f"{kind.uri('odd')}{separator}x-vendor=1")
