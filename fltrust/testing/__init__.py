"""For your tests and notebooks: trust without processes.

    from fltrust.testing import LocalFederation

Nothing here protects anything: keys are made on the spot and live in the process that runs the
training code. Needs the extras ``coordinator`` and ``flower``.
"""

from __future__ import annotations

from fltrust.testing import mischief
from fltrust.testing.clock import FakeClock
from fltrust.testing.coordinator import ScratchCoordinator
from fltrust.testing.federation import LocalFederation, LocalParticipant
from fltrust.testing.identities import ScratchCa, ScratchIdentity, scratch_identity
from fltrust.testing.local_grid import LocalGrid

__all__ = [
    "FakeClock",
    "LocalFederation",
    "LocalGrid",
    "LocalParticipant",
    "ScratchCa",
    "ScratchCoordinator",
    "ScratchIdentity",
    "mischief",
    "scratch_identity",
]
