"""Flower under trust: the two words for an app, and what they stand for.

from fltrust.flower import TrustedClientApp, TrustedStrategy
"""

from __future__ import annotations

from fltrust.flower.client_app import TrustedClientApp
from fltrust.flower.grid import TrustedGrid
from fltrust.flower.policy import OnFailure, QuorumPolicy, TrustPolicy, WaitPolicy
from fltrust.flower.server_app import TrustedServerApp
from fltrust.flower.strategy import TrustedStrategy

__all__ = [
    "OnFailure",
    "QuorumPolicy",
    "TrustPolicy",
    "TrustedClientApp",
    "TrustedGrid",
    "TrustedServerApp",
    "TrustedStrategy",
    "WaitPolicy",
]
