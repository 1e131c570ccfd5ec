"""Path validation by RFC 5280 at a stated time, with CRLs and OCSP answers as evidence.

Pure: no clock, no network.

`fltrust.pki.verify` is for certificates of ours, under our profile, with the trust feed beside it. This room
is for everybody else's rules, and for relying parties that have CRLs and OCSP instead of the feed.
"""

from __future__ import annotations

from fltrust.pki.path.evidence import Evidence
from fltrust.pki.path.types import (
    ANY_POLICY,
    CertificateStatus,
    PathLimits,
    PathPolicy,
    RevocationMode,
    StatusKind,
    ValidatedPath,
)
from fltrust.pki.path.validation import validate_path

__all__ = [
    "ANY_POLICY",
    "CertificateStatus",
    "Evidence",
    "PathLimits",
    "PathPolicy",
    "RevocationMode",
    "StatusKind",
    "ValidatedPath",
    "validate_path",
]
