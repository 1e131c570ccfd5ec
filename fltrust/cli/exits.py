"""Exit codes, documented and stable. The most specific class of an error decides."""

from __future__ import annotations

from fltrust import errors

OK = 0
UNEXPECTED = 1
USAGE = 2
INTERRUPTED = 130

EXIT_CODES: dict[type[errors.FltrustError], int] = {
    errors.Refused: 3,
    errors.Revoked: 4,
    errors.SignatureInvalid: 5,
    errors.StatementRefused: 5,
    errors.UpdateRefused: 5,
    errors.NotFound: 6,
    errors.Conflict: 7,
    errors.InvalidInput: 8,
    errors.Unavailable: 9,
    errors.LimitExceeded: 10,
    errors.UntrustedSigner: 11,
    errors.Tampered: 12,
    errors.EvidenceMissing: 13,
    errors.Tainted: 14,
    errors.PolicyNotMet: 15,
    errors.EvidenceInvalid: 5,
}

MEANINGS: dict[int, str] = {
    OK: "done",
    UNEXPECTED: "unexpected error: a fault of fltrust's",
    USAGE: "wrong usage",
    3: "refused: a certificate, token, permission or quorum",
    4: "refused: revoked or on hold",
    5: "verification failed: a signature, statement or update does not hold",
    6: "not found",
    7: "conflict: it is already there, or in another state",
    8: "malformed or oversized input",
    9: "unavailable: coordinator, agent or storage; try again",
    10: "a limit was reached",
    11: "untrusted signer: the model is signed, but not by whom you trust",
    12: "tampered: the bytes are not the ones that were signed",
    13: "evidence is missing: signature, timestamp, log entry or lineage",
    14: "tainted: made of updates that count as compromised",
    15: "another demand of the policy is not met",
    INTERRUPTED: "interrupted",
}


def exit_code_of(error: errors.FltrustError) -> int:
    """The code of the error's own class, or of the nearest class above it."""
    for cls in type(error).__mro__:
        if cls in EXIT_CODES:
            return EXIT_CODES[cls]
    return UNEXPECTED
