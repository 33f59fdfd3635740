"""A keyspace: the part of etcd's keys that is this cluster's."""

from __future__ import annotations


class Keyspace:
    """Puts a prefix before every key, and takes it off again. It ends with a slash: `/dkron` holds nothing of `/dkron2`."""

    def __init__(self, name: str) -> None:
        inner = name.strip("/")
        self._prefix = f"/{inner}/".encode() if inner else b"/"

    def inside(self, key: str) -> bytes:
        """Return etcd's name of a key (or of a prefix). Raises `UnicodeEncodeError`."""
        return self._prefix + key.encode()

    def outside(self, key: bytes) -> str:
        """Return our name of etcd's key."""
        return key[len(self._prefix) :].decode()


def end_of(prefix: bytes) -> bytes:
    """Return the least key above all that begin with a prefix, which is UTF-8 and so never ends with the highest byte."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def after(key: bytes) -> bytes:
    """Return the least key above this one."""
    return key + b"\0"
