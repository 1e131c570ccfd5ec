"""Federation with other trust domains: what is agreed, what is followed, and who is admitted."""

from __future__ import annotations

from fltrust.coordinator.federation.desk import FederationDesk

__all__ = ["FederationDesk"]
