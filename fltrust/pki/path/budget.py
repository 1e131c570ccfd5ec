"""What is left of a validation's bounds. One for each call: it is the only thing here that changes."""

from __future__ import annotations

from fltrust.errors import Refusal
from fltrust.pki.leaf import refuse
from fltrust.pki.path.types import PathLimits


class Budget:
    """Counts what a validation has cost; past a bound everything is refused with ``oversized``."""

    def __init__(self, limits: PathLimits) -> None:
        self.limits = limits
        self._paths = limits.paths
        self._steps = limits.steps
        self._signatures = limits.signatures
        self._comparisons = limits.name_comparisons

    def path(self) -> None:
        self._paths -= 1
        if self._paths < 0:
            self._over(f"at most {self.limits.paths} paths to try")

    def step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            self._over(f"at most {self.limits.steps} steps to build")

    def signature(self) -> None:
        self._signatures -= 1
        if self._signatures < 0:
            self._over(f"at most {self.limits.signatures} signatures to check")

    def comparisons(self, count: int) -> None:
        self._comparisons -= count
        if self._comparisons < 0:
            self._over(f"at most {self.limits.name_comparisons} comparisons of names with constraints")

    @staticmethod
    def _over(expected: str) -> None:
        refuse(f"expected a path that needs {expected}, got one that needs more", reason=Refusal.OVERSIZED)
