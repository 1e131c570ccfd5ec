"""The keys that make the coordinator a notary: log, certificate log and timestamp authority.

In the coordinator's folder, beside ``ca/``, every key encrypted with the issuing passphrase (0600):

    log/note.key            Ed25519: signs the log's checkpoints
    log/ct.key              P-256: signs certificate timestamps, and signed entry timestamps
    tsa/tsa.key             P-256: signs timestamps
    tsa/tsa.pem             the timestamp authority's certificate, then its issuing CA's
    tsa/<serial>.pem        every certificate that the authority ever had, in the same form

Each folder takes its name only when it is whole. The keys stay for the life of the trust domain; the
authority's certificate lives 90 days and is renewed for the same key: one file is written under its
serial and then takes the place of ``tsa.pem``, so a crash leaves the old or the new one.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fltrust.artifacts.trustroot import TransparencyLog, TrustedRoot
from fltrust.clock import Clock
from fltrust.coordinator.ca import CurrentCa, InForce
from fltrust.coordinator.key_choices import KeyChoices
from fltrust.errors import Malformed, StorageUnavailable
from fltrust.files import make_private_folder, read_bounded, sync_folder, write_durably
from fltrust.identity import CaKeyId, Serial
from fltrust.keys.ed25519 import NoteSigner, generate_note_key
from fltrust.keys.file import generate
from fltrust.keys.signer import Signer
from fltrust.keys.stored import load, load_note, save, save_note
from fltrust.keys.usage import CountedNoteSigner, CountedSigner, KeyCounter
from fltrust.pki.authority import load_issuing_history
from fltrust.pki.bundle import MAX_BUNDLE, certificates_from_pem, chain_to_pem
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.pointers import issuer_of
from fltrust.pki.sct import log_id_of
from fltrust.pki.timestamping import TimestampAuthority, TsaDraft, issue_tsa
from fltrust.pki.types import TrustBundle, TrustedChain
from fltrust.tlog.note import KeyType, NoteSignature, VerifierKey

_log = logging.getLogger(__name__)

_RENEW_AT = 2 / 3
"""Of a certificate's life: when the next one is issued."""

TsaChain = tuple[x509.Certificate, ...]
"""A timestamp authority's certificate and what issued it, without the root."""


class NotaryKeys:
    """Note key, certificate-log key and timestamp authority of one trust domain; for many threads.

    Whoever keeps the log sets `on_issued`: it hears of every new certificate of the authority before that
    is used, so that it stands in the log first. It may wait for a transaction: ask for `timestamps` in none.

    `note` signs checkpoints; `ct` signs certificate timestamps and, for entries of Rekor v1, signed entry
    timestamps. `timestamps` is the authority of the moment. `issuing_history` are the issuing CA's
    certificates, oldest first, the present one last.
    """

    def __init__(
        self,
        *,
        note: NoteSigner,
        ct: Signer,
        tsa: Signer,
        ca: CurrentCa,
        clock: Clock,
        history: Sequence[TsaChain] = (),
        issuing_history: Sequence[x509.Certificate] = (),
        keep: Callable[[TsaChain], None] = lambda _chain: None,
    ) -> None:
        self.note = CountedNoteSigner(note, name="note")
        self.ct = CountedSigner(ct, name="ct")
        self._earlier_issuing = tuple(issuing_history)
        self._tsa = CountedSigner(tsa, name="tsa")
        self._ca = ca
        ca.subscribe(self._note_issuing)
        self._note_issuing(ca.now)
        self._clock = clock
        self._keep = keep
        self._lock = threading.Lock()
        self._history = tuple(history)  # replaced, never changed: reading it takes no lock
        self.on_issued: Callable[[x509.Certificate], None] = lambda _certificate: None
        self._authority = self._authority_of(self._history[-1]) if self._history else self._renewed()
        self.renew()

    @property
    def counters(self) -> tuple[KeyCounter, ...]:
        """Of what each key signed."""
        return (self.note.counter, self.ct.counter, self._tsa.counter)

    @property
    def timestamps(self) -> TimestampAuthority:
        """The timestamp authority to use now; its certificate is renewed first when that is due."""
        self.renew()
        return self._authority

    @property
    def tsa_history(self) -> tuple[TsaChain, ...]:
        """Every certificate that the authority had, with its issuer's, oldest first, the present one last."""
        return self._history

    def is_timestamping(self, serial: Serial, issuer: CaKeyId) -> bool:
        """Whether this is the serial of a certificate of this CA that the timestamp authority has or had."""
        return any(
            chain[0].serial_number == serial and issuer_of(chain[0]) == issuer for chain in self._history
        )

    @property
    def issuing_history(self) -> tuple[x509.Certificate, ...]:
        """The issuing CAs' certificates, oldest first, the present one last."""
        present = self._ca.issuer.certificate
        return (*(old for old in self._earlier_issuing if old != present), present)

    def _note_issuing(self, now: InForce) -> None:
        self._earlier_issuing = tuple(dict.fromkeys((*self._earlier_issuing, now.issuer.certificate)))

    @property
    def ct_log_id(self) -> bytes:
        """SHA-256 of the certificate-log key's SubjectPublicKeyInfo: what Sigstore names its log by."""
        return log_id_of(self.ct.public_key)

    def sign_promise(self, text: str) -> NoteSignature:
        """Sign a checkpoint's text (or `ct.sign` a signed entry timestamp) as a Rekor v1 log does: with the
        certificate-log key, named by the start of `ct_log_id`."""
        return NoteSignature(self.log_name, self.ct_log_id[:4], self.ct.sign(text.encode()))

    @property
    def log_name(self) -> str:
        """The log's origin, and the name that its checkpoints are signed under: ``<trust domain>/log``."""
        return f"{self._ca.domain}/log"

    def trusted_root(
        self,
        bundle: TrustBundle,
        *,
        former: Sequence[x509.Certificate] = (),
        ended: Mapping[CaKeyId, datetime] = MappingProxyType({}),
    ) -> TrustedRoot:
        """Everything that was ever signed with, each with its window: what verifiers trust for good.

        Every certificate of the issuing CA under each root that signed it, those that are `former` among
        them, until that CA was `ended`; the note key as the log of
        hashedrekord entries and the certificate-log key as that of dsse entries; the certificate-log key
        again, as certificate log; every certificate of the timestamp authority.
        """
        roots = (*former, *bundle.roots)
        start = min(root.not_valid_before_utc for root in roots)
        note_id = VerifierKey(self.log_name, KeyType.ED25519, self.note.public_key_raw).full_id
        note_key = Ed25519PublicKey.from_public_bytes(self.note.public_key_raw)
        url, ct_key = f"https://{self.log_name}", self.ct.public_key
        ct_log = TransparencyLog(url, ct_key, self.ct_log_id, start)
        chains = (
            ((issuing,), root)
            for issuing in self.issuing_history
            for root in roots
            if _is_issued(issuing, root)
        )
        tsa_chains = (
            (chain, root) for chain in self.tsa_history for root in roots if _is_issued(chain[-1], root)
        )
        return TrustedRoot(
            certificate_authorities=tuple(_trusted(chain, root, ended) for chain, root in chains),
            ct_logs=(ct_log,),
            tlogs=(TransparencyLog(url, note_key, note_id, start), ct_log),
            timestamp_authorities=tuple(_trusted(chain, root, ended) for chain, root in tsa_chains),
        )

    def renew(self) -> None:
        """Renew the authority's certificate if two thirds of its life are over, or the issuing CA was
        renewed since. A disk that refuses is logged while the old certificate is good."""
        if not self._is_due():
            return
        with self._lock:
            if not self._is_due():
                return
            try:
                self._authority = self._renewed()
            except StorageUnavailable:
                if not self._authority.is_valid_at(self._clock.now()):
                    raise
                _log.warning("could not keep a new certificate of the timestamp authority", exc_info=True)

    def _is_due(self) -> bool:
        held, issuing = self._authority.certificate, self._ca.issuer.certificate
        if self._authority.chain != (issuing,):
            return True
        start, end = held.not_valid_before_utc, held.not_valid_after_utc
        # One that the issuing CA's end cut short would only be had again.
        return end < issuing.not_valid_after_utc and self._clock.now() >= start + (end - start) * _RENEW_AT

    def _renewed(self) -> TimestampAuthority:
        issuer = self._ca.issuer
        draft = TsaDraft.of(issuer, self._tsa.public_key, now=self._clock.now())
        chain = (issue_tsa(issuer, draft), issuer.certificate)
        authority = self._authority_of(chain)
        self.on_issued(chain[0])
        self._keep(chain)
        self._history = (*self._history, chain)
        return authority

    def _authority_of(self, chain: TsaChain) -> TimestampAuthority:
        return TimestampAuthority(signer=self._tsa, certificate=chain[0], chain=chain[1:], clock=self._clock)


def _trusted(chain: TsaChain, root: x509.Certificate, ended: Mapping[CaKeyId, datetime]) -> TrustedChain:
    """A chain, trusted as long as its first certificate is valid, and its issuing CA was not ended."""
    start, end = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    when = ended.get(ca_key_id(chain[-1].public_key()))
    return TrustedChain((*chain, root), start, end if when is None else max(start, min(end, when)))


def _is_issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def scratch_notary(ca: CurrentCa, *, clock: Clock) -> NotaryKeys:
    """Keys that live in this process alone, for tests."""
    return NotaryKeys(note=generate_note_key(), ct=generate(), tsa=generate(), ca=ca, clock=clock)


def make_notary_keys(folder: Path, *, passphrase: bytes, keys: KeyChoices) -> None:
    """Make the keys that are not there, or note down where the chosen ones lie."""
    _make_once(folder / "log", lambda draft: _make_log_keys(draft, passphrase, keys))
    _make_once(folder / "tsa", lambda draft: save(keys.tsa_key(), draft / "tsa.key", passphrase=passphrase))


def open_notary(folder: Path, ca: CurrentCa, *, passphrase: bytes, clock: Clock) -> NotaryKeys:
    """Read the notary's keys in the coordinator's folder, or make what is not there.

    Whoever calls it holds the folder's database, so that nobody else renews at the same time. Refusals
    as `fltrust.keys.load`'s; `Malformed` or `Conflict` for a certificate that is damaged or of another key.
    """
    log, tsa = folder / "log", folder / "tsa"
    make_notary_keys(folder, passphrase=passphrase, keys=KeyChoices())
    return NotaryKeys(
        note=load_note(log / "note.key", passphrase=passphrase),
        ct=load(log / "ct.key", passphrase=passphrase),
        tsa=load(tsa / "tsa.key", passphrase=passphrase),
        ca=ca,
        clock=clock,
        history=_read_history(tsa),
        issuing_history=load_issuing_history(folder / "ca"),
        keep=lambda chain: _keep(tsa, chain),
    )


def _make_log_keys(draft: Path, passphrase: bytes, chosen: KeyChoices) -> None:
    save_note(chosen.note_key(), draft / "note.key", passphrase=passphrase)
    save(chosen.ct_key(), draft / "ct.key", passphrase=passphrase)


def _make_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder whole or not at all; one that is there is left as it is."""
    if folder.exists():
        return
    draft = folder.with_name(f".{folder.name}.incomplete-{secrets.token_hex(8)}")
    make_private_folder(draft)
    try:
        fill(draft)
        os.rename(draft, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise StorageUnavailable(f"could not create {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _keep(folder: Path, chain: TsaChain) -> None:
    pem = chain_to_pem(chain)
    write_durably(folder / f"{Serial(chain[0].serial_number).hex}.pem", pem)
    write_durably(folder / "tsa.pem", pem)


def _read_history(folder: Path) -> tuple[TsaChain, ...]:
    """Every certificate that the authority had, oldest first, the present one last; none before the first."""
    present = folder / "tsa.pem"
    if not present.exists():
        return ()
    found = {chain[0]: chain for chain in map(_read_chain, sorted(folder.glob("*.pem")))}
    last = found.pop(_read_chain(present)[0])
    return (*sorted(found.values(), key=lambda chain: chain[0].not_valid_before_utc), last)


def _read_chain(path: Path) -> TsaChain:
    chain = certificates_from_pem(read_bounded(path, limit=MAX_BUNDLE), limit=2)
    if len(chain) != 2:
        raise Malformed(f"expected a timestamp authority's certificate and its issuer's in {path}")
    return chain
