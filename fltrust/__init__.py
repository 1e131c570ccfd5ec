"""fltrust: trust for Flower federations.

Short-lived certificates for participants, signed instructions and updates,
mid-round revocation, and a record that verifies afterwards.
"""

from __future__ import annotations

__version__ = "0.1.0"
