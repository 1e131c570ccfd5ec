"""A root ceremony's answers, made with the root's key that lies in a lab's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fltrust.ceremony.files import Act, Answer
from fltrust.clock import SystemClock
from fltrust.identity import Digest, TrustDomain
from fltrust.keys import Signer, generate
from fltrust.keys.file import load
from fltrust.pki import create_issuing, load_bundle
from fltrust.pki.authority import CaFiles, read_certificate
from fltrust.pki.ca_certificates import create_root_succession
from fltrust.pki.csr import parse_csr
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.rollover import prepare_issuing

if TYPE_CHECKING:
    from examples.lab.federation import Lab


class RootAtHand:
    """What a root ceremony answers, made with the root's key that lies in the lab's folder."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.folder / "coordinator" / "ca"
        self.root = load_bundle(self.folder).roots[0]
        self.signer = load(CaFiles(self.folder).root_key, passphrase=lab.passphrase)

    def issuing(self) -> str:
        return str(ca_key_id(read_certificate(CaFiles(self.folder).issuing_certificate).public_key()))

    def present(self) -> str:
        """Where the certificate of the issuing CA lies, as it is now: a copy."""
        copy = self.lab.folder / f"{self.issuing()}.pem"
        copy.write_bytes(CaFiles(self.folder).issuing_certificate.read_bytes())
        return str(copy)

    def bundle_sequence(self) -> int:
        return load_bundle(self.folder).sequence

    def answer_issuing(self, root: x509.Certificate | None = None, signer: Signer | None = None) -> Path:
        """The certificate of the next issuing CA."""
        csr = parse_csr(prepare_issuing(self.folder, passphrase=self.lab.passphrase))
        certificate = create_issuing(
            root=root or self.root,
            root_signer=signer or self.signer,
            public_key=csr,
            now=SystemClock().now(),
        )
        return self._answer(Act.ISSUING, certificate)

    def roll_issuing(self, root: x509.Certificate, signer: Signer | None = None) -> None:
        answer = self.answer_issuing(root, signer)
        self.lab.fltrust("ca", "roll-issuing", str(answer), "--reason", "its year is over")

    def add_root(self) -> tuple[x509.Certificate, Signer]:
        signer = generate()
        found = create_root_succession(
            old=self.root, old_signer=self.signer, new_signer=signer, now=SystemClock().now()
        )
        answer = self._answer(Act.ROLLOVER, found.old, found.new, found.new_with_old, found.old_with_new)
        self.lab.fltrust("ca", "change-anchors", "--add", str(answer), "--reason", "ten years are over")
        return found.new, signer

    def _answer(self, act: Act, *certificates: x509.Certificate) -> Path:
        path = self.lab.folder / f"{act}.json"
        nothing = Digest.sha256_of(b"")
        answer = Answer(
            act=act,
            domain=TrustDomain(self.lab.domain),
            request=nothing,
            transcript=nothing,
            certificates=certificates,
        )
        path.write_bytes(answer.to_json())
        return path
