"""How an operator of the machine asks a running agent for a renewal now: a file in its state folder.

The folder is open to its owner alone, so whoever can write there may ask; asking twice is asking once.
"""

from __future__ import annotations

from pathlib import Path

from fltrust.files import write_durably

_FILE = "renew.request"


def request_renewal(folder: Path) -> None:
    """Ask the agent that runs on this state; it looks every two seconds."""
    write_durably(folder / _FILE, b"")


def take_request(folder: Path) -> bool:
    """Whether a renewal was asked for since the last time."""
    try:
        (folder / _FILE).unlink()
    except OSError:
        return False
    return True
