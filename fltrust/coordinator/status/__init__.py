"""Revocation status for everybody: CRLs, OCSP, and the pages that serve both over plain HTTP."""
