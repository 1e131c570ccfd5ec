"""The room: a folder on a machine without a network, with a root's key that only a quorum of holders opens.

keys-0001/                         replaced whole when keys or holders change
    unlock.json                    the holders, and the secret sealed to every quorum of them
    root-<key id>.pem .key .crl    each root that this room made, the key encrypted with the secret
transcripts/0001.json …            what was done, in order (`fltrust.ceremony.transcript`)
answers/0002.json …                what came out, once more, should the file that left here be lost
root.pem                           the root in force, for everybody
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.ceremony.files import REASONS, Act, Answer, Request
from fltrust.ceremony.holders import Holder
from fltrust.ceremony.room_keys import MAX_UNLOCK, SECRET_BYTES, KeySet, Lock, newest_keys
from fltrust.ceremony.transcript import (
    MAX_TRANSCRIPT,
    Closing,
    Opening,
    Told,
    Transcript,
    record,
    verify_transcripts,
)
from fltrust.ceremony.unlock import Roster, open_sealed
from fltrust.clock import Clock, to_rfc3339
from fltrust.errors import Conflict, FltrustError, Malformed, Refused, StorageUnavailable
from fltrust.files import make_private_folder, read_bounded, sync_folder, write_durably
from fltrust.identity import Digest, KeyId, TrustDomain
from fltrust.keys.file import generate
from fltrust.keys.openssh import spki_der
from fltrust.keys.signer import Signer
from fltrust.pki.authority import read_certificate
from fltrust.pki.bundle import chain_to_pem, root_fingerprint
from fltrust.pki.ca_certificates import (
    create_cross_certificate,
    create_issuing,
    create_root,
    create_root_succession,
)
from fltrust.pki.csr import parse_csr
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.pointers import key_identifier_of
from fltrust.pki.root_crl import create_root_crl, revoked_entry


@dataclass(frozen=True, slots=True)
class Adopted:
    """A root from before there was a room, with its key and what it revoked."""

    root: x509.Certificate
    signer: Signer
    revoked: tuple[x509.RevokedCertificate, ...] = ()

    def __post_init__(self) -> None:
        if self.root.public_key() != self.signer.public_key:
            raise Conflict("expected the key of the root that is taken in, got another key")


class Room:
    """An opened room. Every method that uses the key needs a quorum of holders, keys open."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._keys = newest_keys(folder)
        self._lock = _lock_in(self._keys)
        self._settle()

    @classmethod
    def create(
        cls,
        folder: Path,
        domain: TrustDomain,
        *,
        roster: Roster,
        holders: Sequence[Holder],
        clock: Clock,
        adopt: Adopted | None = None,
        root_signer: Signer | None = None,
    ) -> Room:
        """Make a room with a new root, or around one that is there (`adopt`), whole or not at all.

        `root_signer`: a key in an HSM, which then stays there; the room keeps the line that names it. Its
        holders are those of `roster`; a quorum of them must be present and sign the first transcript.
        """
        if folder.exists() and any(folder.iterdir()):
            raise Conflict(
                f"expected an empty folder at {folder}, found files in it",
                hint="a room is made once; a root is never overwritten",
            )
        if adopt is not None and domain_of_ca(adopt.root) != domain:
            raise Conflict(f"expected a root of {domain}, got one of {domain_of_ca(adopt.root)}")
        if not folder.parent.exists():
            make_private_folder(folder.parent)
        draft = folder.with_name(f".{folder.name}.incomplete-{secrets.token_hex(8)}")
        make_private_folder(draft)
        try:
            make_private_folder(draft / "transcripts")
            make_private_folder(draft / "keys-0001")

            def act() -> Closing:
                signer = adopt.signer if adopt is not None else root_signer or generate()
                now = clock.now()
                root = adopt.root if adopt is not None else create_root(domain, signer=signer, now=now)
                revoked = () if adopt is None else adopt.revoked
                crl = create_root_crl(root=root, signer=signer, now=now, revoked=revoked)
                secret = secrets.token_bytes(SECRET_BYTES)
                keys = KeySet(draft / "keys-0001", secret)
                keys.put(root, signer, crl)
                lock = Lock.new(domain, root=key_identifier_of(root), roster=roster, secret=secret)
                write_durably(draft / "keys-0001" / "unlock.json", lock.to_json())
                write_durably(draft / "root.pem", chain_to_pem([root]))
                return _closing(opening, root, (root, crl), clock)

            opening = Opening(
                domain=domain,
                sequence=1,
                previous=None,
                at=clock.now(),
                act=Act.INIT,
                request=None,
                words=_roster_words(domain, roster, adopted=None if adopt is None else adopt.root),
                roster=roster,
            )
            transcript = record(opening, holders, roster, act)
            verify_transcripts([transcript])
            write_durably(draft / "transcripts" / "0001.json", transcript.to_json())
            os.rename(draft, folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise StorageUnavailable(f"could not create {folder}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(folder, clock=clock)

    @property
    def domain(self) -> TrustDomain:
        return self._lock.domain

    @property
    def roster(self) -> Roster:
        return self._lock.roster

    @property
    def root(self) -> x509.Certificate:
        """The root in force."""
        return read_certificate(self._keys / f"root-{self._lock.root}.pem")

    def transcripts(self) -> list[Transcript]:
        """Every transcript, in order, not verified."""
        paths = sorted((self._folder / "transcripts").glob("[0-9]*.json"))
        return [Transcript.from_json(read_bounded(path, limit=MAX_TRANSCRIPT)) for path in paths]

    def told(self) -> list[Told]:
        """What the transcripts tell; raises if they do not hold together (`verify_transcripts`)."""
        return verify_transcripts(self.transcripts())

    def perform(self, request: Request, holders: Sequence[Holder]) -> Answer:
        """Do what a request asks, with the holders who are present; returns the answer.

        1. The request is of this room's domain, and the transcripts so far hold together.
        2. A quorum signs the opening: the request's digest and its words.
        3. The secret is opened, and the key with it; the key is the root's.
        4. The root signs. What it signs is built here, from the profiles; a request gives key and names.
        5. The closing is signed, and the transcript written, before the answer leaves this function; a copy
           of the answer stays here.
        """
        # 1.
        if request.domain != self.domain:
            raise Refused(
                f"expected a request of {self.domain}, got one of {request.domain}", reason="wrong-domain"
            )
        opening = self._opening(request.act, words=request.words(), request=request.digest)
        made: list[x509.Certificate | x509.CertificateRevocationList] = []
        finish: list[Callable[[], None]] = []

        def act() -> Closing:
            # 3.
            keys = self._open(holders)
            # 4.
            root, now = self.root, self._clock.now()
            signer = keys.signer_of(root)
            if request.act is Act.ISSUING and request.csr_der is not None:
                public_key = parse_csr(request.csr_der)
                how = {"root": root, "root_signer": signer, "public_url": request.public_url}
                made.append(create_issuing(**how, public_key=public_key, now=now))  # type: ignore[arg-type]
                made.append(self._next_crl(request, keys, root, signer))
            elif request.act is Act.CRL:
                made.append(self._next_crl(request, keys, root, signer))
            elif request.act is Act.CROSS:
                made.append(_cross(request, root, signer, self._clock))
            elif request.act is Act.ROLLOVER:
                root = self._roll(request, keys, root, signer, made, finish)
            else:
                raise Malformed(f"expected something that a request can ask for, got {request.act}")
            return _closing(opening, root, made, self._clock)

        # 2. and 5.
        transcript = record(opening, holders, self.roster, act)
        self._write(transcript, opening.sequence)
        answer = Answer(
            act=request.act,
            domain=self.domain,
            request=request.digest,
            transcript=transcript.digest,
            certificates=tuple(item for item in made if isinstance(item, x509.Certificate)),
            crls=tuple(item for item in made if isinstance(item, x509.CertificateRevocationList)),
        )
        make_private_folder(self._folder / "answers")
        write_durably(self._folder / "answers" / f"{opening.sequence:04d}.json", answer.to_json())
        for step in finish:
            step()
        return answer

    def change_holders(self, roster: Roster, holders: Sequence[Holder]) -> None:
        """Seal every root's key anew, under a new secret, to other holders; a quorum of those before agrees.

        The old sealing is removed from this folder. Copies of it elsewhere still open with the old holders'
        keys: destroy them, or roll the root.
        """
        opening = self._opening(Act.HOLDERS, words=_roster_words(self.domain, roster), roster=roster)
        finish: list[Callable[[], None]] = []

        def act() -> Closing:
            finish.append(self._replace_keys(self._open(holders), self._lock.root, roster, ()))
            return _closing(opening, self.root, (), self._clock)

        transcript = record(opening, holders, self.roster, act)
        self._write(transcript, opening.sequence)
        for step in finish:
            step()

    def _opening(
        self,
        act: Act,
        *,
        words: tuple[str, ...],
        request: Digest | None = None,
        roster: Roster | None = None,
    ) -> Opening:
        told = self.told()
        last, rosters = told[-1], [one.opening.roster for one in told if one.opening.roster is not None]
        if rosters[-1] != self.roster or last.closing.root != root_fingerprint(self.root):
            raise Refused(
                "expected the holders and the root of the last transcript in the room, found others",
                reason="transcript-broken",
            )
        now = self._clock.now()
        if now < last.closing.at:
            raise Refused(
                f"expected a clock after {to_rfc3339(last.closing.at)}, when the last ceremony ended, "
                f"got {to_rfc3339(now)}",
                reason="clock-behind",
                hint="set this machine's clock",
            )
        return Opening(
            domain=self.domain,
            sequence=last.opening.sequence + 1,
            previous=last.digest,
            at=now,
            act=act,
            request=request,
            words=words,
            roster=roster,
        )

    def _settle(self) -> None:
        """Put keys in place that the last transcript speaks of, and a crash kept from it; and remove those
        that it replaced."""
        number = int(self._keys.name.removeprefix("keys-")) + 1
        draft = self._folder / f".keys-{number:04d}.incomplete"
        if not self._is_told(self._keys, self._lock):
            # unlock.json is written last: with it, everything is there.
            if not (draft / "unlock.json").exists() or not self._is_told(draft, _lock_in(draft)):
                return  # whoever uses the key is told
            self._keys = self._folder / f"keys-{number:04d}"
            os.rename(draft, self._keys)
            sync_folder(self._folder)
            self._lock = _lock_in(self._keys)
        root, shown = chain_to_pem([self.root]), self._folder / "root.pem"
        if not shown.exists() or read_bounded(shown, limit=MAX_TRANSCRIPT) != root:
            write_durably(shown, root)
        for before in self._folder.glob("keys-[0-9][0-9][0-9][0-9]"):
            if before != self._keys:
                shutil.rmtree(before, ignore_errors=True)

    def _is_told(self, keys: Path, lock: Lock) -> bool:
        """Whether the transcripts end with these holders and this root."""
        try:
            told = self.told()
        except FltrustError:
            return False
        rosters = [one.opening.roster for one in told if one.opening.roster is not None]
        root = read_certificate(keys / f"root-{lock.root}.pem")
        return rosters[-1] == lock.roster and told[-1].closing.root == root_fingerprint(root)

    def _open(self, holders: Sequence[Holder]) -> KeySet:
        return KeySet(self._keys, open_sealed(self._lock.envelopes, holders, room=self._lock.room))

    def _next_crl(
        self, request: Request, keys: KeySet, root: x509.Certificate, signer: Signer
    ) -> x509.CertificateRevocationList:
        known = {entry.serial_number: entry for entry in keys.crl_of(root)}
        now = self._clock.now()
        for serial, reason in request.revoke:
            known.setdefault(int(serial), revoked_entry(int(serial), at=now, reason=REASONS[reason]))
        crl = create_root_crl(root=root, signer=signer, now=now, revoked=list(known.values()))
        keys.put_crl(root, crl)
        return crl

    def _roll(
        self,
        request: Request,
        keys: KeySet,
        root: x509.Certificate,
        signer: Signer,
        made: list[x509.Certificate | x509.CertificateRevocationList],
        finish: list[Callable[[], None]],
    ) -> x509.Certificate:
        now, new_signer = self._clock.now(), generate()
        done = create_root_succession(
            old=root, old_signer=signer, new_signer=new_signer, now=now, public_url=request.public_url
        )
        crl = create_root_crl(root=done.new, signer=new_signer, now=now)
        made += [done.old, done.new, done.new_with_old, done.old_with_new, crl]
        added = ((done.new, new_signer, crl),)
        finish.append(self._replace_keys(keys, key_identifier_of(done.new), self.roster, added))
        return done.new

    def _replace_keys(
        self,
        keys: KeySet,
        root: str,
        roster: Roster,
        added: Sequence[tuple[x509.Certificate, Signer, x509.CertificateRevocationList]],
    ) -> Callable[[], None]:
        """Make the next folder of keys beside the present one; what is returned puts it in place."""
        number = int(self._keys.name.removeprefix("keys-")) + 1
        draft = self._folder / f".keys-{number:04d}.incomplete"
        shutil.rmtree(draft, ignore_errors=True)
        make_private_folder(draft)
        secret = secrets.token_bytes(SECRET_BYTES)
        after = KeySet(draft, secret)
        for certificate in keys.roots():
            after.put(certificate, keys.signer_of(certificate), keys.crl_of(certificate))
        for certificate, signer, crl in added:
            after.put(certificate, signer, crl)
        lock = Lock.new(self.domain, root=root, roster=roster, secret=secret)
        write_durably(draft / "unlock.json", lock.to_json())

        def finish() -> None:
            before, self._keys = self._keys, self._folder / f"keys-{number:04d}"
            os.rename(draft, self._keys)
            sync_folder(self._folder)
            self._lock = lock
            write_durably(self._folder / "root.pem", chain_to_pem([self.root]))
            shutil.rmtree(before, ignore_errors=True)

        return finish

    def _write(self, transcript: Transcript, sequence: int) -> None:
        path = self._folder / "transcripts" / f"{sequence:04d}.json"
        if path.exists():
            raise Conflict(f"expected no transcript at {path}, found one")
        verify_transcripts([*self.transcripts(), transcript])  # one that does not hold would end the room
        write_durably(path, transcript.to_json())


def _lock_in(keys: Path) -> Lock:
    return Lock.from_json(read_bounded(keys / "unlock.json", limit=MAX_UNLOCK))


def _cross(request: Request, root: x509.Certificate, signer: Signer, clock: Clock) -> x509.Certificate:
    names: list[x509.GeneralName] = []
    for name in request.permitted:
        # A host or everything below a domain, in both forms that a name of ours has (RFC 5280, 4.2.1.10).
        names += [x509.UniformResourceIdentifier(name), x509.DNSName(name)]
    return create_cross_certificate(
        subject=request.subject(),
        issuer=root,
        signer=signer,
        constraints=x509.NameConstraints(names, None),
        now=clock.now(),
        path_length=request.path_length,
        public_url=request.public_url,
    )


def _closing(
    opening: Opening,
    root: x509.Certificate,
    made: Sequence[x509.Certificate | x509.CertificateRevocationList],
    clock: Clock,
) -> Closing:
    return Closing(
        opening=Digest.sha256_of(opening.to_json()),
        at=clock.now(),
        root=root_fingerprint(root),
        made=tuple(Digest.sha256_of(item.public_bytes(Encoding.DER)) for item in made),
    )


def _roster_words(
    domain: TrustDomain, roster: Roster, *, adopted: x509.Certificate | None = None
) -> tuple[str, ...]:
    lines = [f"trust domain   {domain}"]
    lines.append(f"any {roster.threshold} of {len(roster.cards)} holders open the key")
    lines += [
        f"holder         {card.name}, key {KeyId.of_spki(spki_der(card.signing))}" for card in roster.cards
    ]
    if adopted is not None:
        lines.append(f"takes in       root {root_fingerprint(adopted)}")
    return tuple(lines)
