"""Whom a process runs as."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from typing import Final, NamedTuple

_HIGHEST: Final = 2**32 - 2  # the id above it means "leave it as it is"


class Identity(NamedTuple):
    """What a process needs to become somebody: ids, supplementary groups, and what its environment says. None: as the agent."""

    user: int | None
    group: int | None
    groups: list[int] | None
    environment: dict[str, str]


AS_AGENT: Final = Identity(None, None, None, {})


def resolve(user: str | int | None, group: str | int | None) -> Identity:
    """Look up who is meant, on this node, however long that takes.

    Text is a name before it is a number, as for chown. The group is the user's primary one unless another is given, and the
    supplementary groups are the user's own: none of the agent's are left.

    Raises:
        ValueError: with a sentence, if there is no such user or group.
    """
    gid = None if group is None else _group(group)
    if user is None:
        return Identity(None, gid, None, {})
    entry = _entry(user)
    if entry is not None:
        return _identity(entry, gid)
    uid = _number(user)
    if uid is None:
        raise ValueError(f"there is no user {user!r} on this node")
    if gid is None:
        raise ValueError(f"user {user} has no name on this node, and so no group of its own: write {user}:GROUP")
    return Identity(uid, gid, [gid], {})


def _identity(entry: pwd.struct_passwd, gid: int | None) -> Identity:
    group = entry.pw_gid if gid is None else gid
    environment = {"HOME": entry.pw_dir, "LOGNAME": entry.pw_name, "USER": entry.pw_name}
    return Identity(entry.pw_uid, group, os.getgrouplist(entry.pw_name, group), environment)


def _entry(user: str | int) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(str(user))
    uid = _number(user)
    with contextlib.suppress(KeyError):
        return None if uid is None else pwd.getpwuid(uid)
    return None


def _group(group: str | int) -> int:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(str(group)).gr_gid
    gid = _number(group)
    if gid is None:
        raise ValueError(f"there is no group {group!r} on this node")
    return gid


def _number(text: str | int) -> int | None:
    """Return an id as a number, or None if it cannot be one."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if 0 <= number <= _HIGHEST else None
