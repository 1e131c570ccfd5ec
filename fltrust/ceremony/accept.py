"""Answers, taken into a CA's folder: each part is checked for what it is, whoever brought it."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from fltrust.ceremony.files import Act, Answer
from fltrust.clock import Clock
from fltrust.errors import Malformed, Refusal, Refused
from fltrust.files import write_durably
from fltrust.identity import Digest
from fltrust.pki.authority import CaFiles, load_bundle
from fltrust.pki.bundle import chain_to_pem, root_fingerprint
from fltrust.pki.ca_certificates import RootSuccession, check_authority, is_issued_by
from fltrust.pki.leaf import refuse
from fltrust.pki.offline_root import finish_ca
from fltrust.pki.profiles import CaKind
from fltrust.pki.rollover import accept_issuing, accept_root
from fltrust.pki.root_revocation import accept_root_crl
from fltrust.pki.types import TrustBundle


def accept_answer(folder: Path, answer: Answer, *, clock: Clock) -> str:
    """Take an answer into the CA in `folder`, and say in a sentence what comes next.

    Refused: another trust domain's (``wrong-domain``), one that is not of the shape of its act (`Malformed`),
    and whatever `accept_issuing`, `accept_root` and `accept_root_crl` refuse; a cross-certificate that no
    root of the bundle signed.
    """
    domain = load_bundle(folder).domain
    if answer.domain != domain:
        raise Refused(f"expected an answer for {domain}, got one for {answer.domain}", reason="wrong-domain")
    shape = (answer.act, len(answer.certificates), len(answer.crls))
    if shape == (Act.ISSUING, 1, 1):
        accept_issuing(folder, answer.certificates[0], clock=clock)
        accept_root_crl(folder, answer.crls[0])
        return "The next issuing CA is ready. Put it in place: fltrust ca switch"
    if shape == (Act.ROLLOVER, 4, 1):
        succession = RootSuccession(*answer.certificates)
        bundle = accept_root(folder, succession)
        accept_root_crl(folder, answer.crls[0])
        return (
            f"The trust bundle has {len(bundle.roots)} roots, sequence {bundle.sequence}; "
            f"the new one is {root_fingerprint(succession.new)}. Next: fltrust ca request issuing"
        )
    if shape == (Act.CRL, 0, 1):
        crl = accept_root_crl(folder, answer.crls[0])
        return f"The root's CRL has {len(crl)} entries and is good until {crl.next_update_utc:%Y-%m-%d}."
    if shape == (Act.CROSS, 1, 0):
        return _accept_cross(folder, answer.certificates[0])
    raise Malformed(f"expected an answer with what {answer.act} makes, found other parts")


def complete_ca(
    folder: Path, answer: Answer, *, root: x509.Certificate, fingerprint: Digest, clock: Clock
) -> TrustBundle:
    """Complete a CA whose root was never here; refusals as `fltrust.pki.offline_root.finish_ca`'s."""
    if (answer.act, len(answer.certificates), len(answer.crls)) != (Act.ISSUING, 1, 1):
        raise Malformed(f"expected an answer with an issuing CA's certificate, got one to {answer.act}")
    return finish_ca(
        folder,
        answer.domain,
        root=root,
        fingerprint=fingerprint,
        issuing=answer.certificates[0],
        crl=answer.crls[0],
        clock=clock,
    )


def _accept_cross(folder: Path, certificate: x509.Certificate) -> str:
    check_authority(certificate, CaKind.CROSS)
    if not any(is_issued_by(certificate, root) for root in load_bundle(folder).roots):
        refuse(
            "expected a cross-certificate that a root of the bundle signed, it is not",
            reason=Refusal.CERTIFICATE_PATH,
        )
    path = CaFiles(folder).cross(certificate)
    write_durably(path, chain_to_pem([certificate]))
    return f"The cross-certificate is in {path}; give it to the other domain and to whoever builds paths."
