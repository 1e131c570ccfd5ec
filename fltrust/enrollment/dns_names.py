"""DNS names of a record: how many a role may have, and what is one."""

from __future__ import annotations

from collections.abc import Sequence

from fltrust.errors import Malformed
from fltrust.identity import Role
from fltrust.pki.leaf import is_dns_name
from fltrust.pki.profiles import Profiles


def check_dns_names(role: Role, names: Sequence[str], *, profiles: Profiles) -> None:
    """Return only if certificates of this role may carry exactly these names beside their own."""
    profile = profiles.leaves[role]
    if not profile.min_dns_names <= len(names) <= profile.max_dns_names:
        wanted = f"{profile.min_dns_names} to {profile.max_dns_names}" if profile.max_dns_names else "no"
        raise Malformed(
            f"expected {wanted} DNS names for the role {role}, got {len(names)}",
            reason="dns-names",
            hint="give them with --dns" if profile.min_dns_names else None,
        )
    if len(set(names)) != len(names) or not all(map(is_dns_name, names)):
        raise Malformed("expected different, lower-case DNS names, got others", reason="dns-names")
