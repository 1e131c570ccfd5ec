"""Flower under trust: the two words for an app, and what they stand for.

from fltrust.flower import TrustedClientApp, TrustedStrategy
"""

from __future__ import annotations

from fltrust.flower.client_app import TrustedClientApp
from fltrust.flower.grid import TrustedGrid
from fltrust.flower.policy import OnFailure, QuorumPolicy, Retention, TrustPolicy, WaitPolicy
from fltrust.flower.records import save_model
from fltrust.flower.server_app import TrustedServerApp
from fltrust.flower.services import ExchangeReport
from fltrust.flower.strategy import TrustedStrategy
from fltrust.revocation.view import ReachMode, ReachPolicy
from fltrust.updates import StructurePolicy

__all__ = [
    "ExchangeReport",
    "OnFailure",
    "QuorumPolicy",
    "ReachMode",
    "ReachPolicy",
    "Retention",
    "StructurePolicy",
    "TrustPolicy",
    "TrustedClientApp",
    "TrustedGrid",
    "TrustedServerApp",
    "TrustedStrategy",
    "WaitPolicy",
    "save_model",
]
