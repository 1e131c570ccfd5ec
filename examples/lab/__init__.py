"""A whole federation on one machine, in real processes on 127.0.0.1.

The demo, the end-to-end tests and the benchmarks run on it. It does what an operator and
four sites would type, nothing else: every step is a command of `fltrust` or of Flower.
"""

from __future__ import annotations

from examples.lab.federation import Lab, Run, StockLab
from examples.lab.processes import Process, free_port

__all__ = ["Lab", "Process", "Run", "StockLab", "free_port"]
