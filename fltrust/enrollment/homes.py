"""Where state folders lie on a machine: ``<home>/<trust domain>/<role>-<name>``."""

from __future__ import annotations

import os
from pathlib import Path

from fltrust.errors import Conflict, NotFound
from fltrust.identity import Role, SpiffeId

HOME_VARIABLE = "FLTRUST_HOME"


def default_home() -> Path:
    """Where states lie: ``$FLTRUST_HOME``, else ``~/.fltrust``."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home) if home else Path.home() / ".fltrust"


def state_folder(who: SpiffeId, *, home: Path | None = None) -> Path:
    """The folder of one identity: ``<home>/<trust domain>/<role>-<name>``."""
    return (home or default_home()) / who.domain / f"{who.role}-{who.name}"


def list_states(*, home: Path | None = None, role: Role | None = None) -> tuple[Path, ...]:
    """The states under `home`, of one role or of all; those put aside by a replacement are left out."""
    pattern = "*" if role is None else f"{role}-*"
    found = (home or default_home()).glob(f"*/{pattern}/agent.json")
    return tuple(sorted(path.parent for path in found if "." not in path.parent.name))


def find_state(role: Role | None, *, home: Path | None = None) -> Path:
    """The one state under `home`, of this role or of any. `NotFound` for none, `Conflict` for several."""
    base = home or default_home()
    found, kind = list_states(home=base, role=role), role or "identity"
    if not found:
        raise NotFound(
            f"expected the state of one {kind} under {base}, found none",
            hint="run 'fltrust join' first"
            + (", or 'fltrust coordinator init' for a new trust domain" if role is Role.OPERATOR else ""),
        )
    if len(found) > 1:
        names = ", ".join(str(path) for path in found[:8])
        raise Conflict(
            f"expected the state of one {kind} under {base}, found {len(found)}: {names}",
            hint="choose one with --state",
        )
    return found[0]
