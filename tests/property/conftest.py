"""Properties are tried on the same small worlds as the rooms' own tests: let them be found."""

from __future__ import annotations

import sys
from pathlib import Path

for room in ("updates", "agent", "coordinator", "artifacts"):
    sys.path.append(str(Path(__file__).parents[1] / room))
