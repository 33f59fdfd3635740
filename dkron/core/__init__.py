"""The core: membership, election, selection, scheduling, and the life of a run.

Nothing in here opens a socket, a file or a database, and nothing in here knows the name of an executor or a store. Time,
randomness and the members come in as arguments, so that the same code runs in production and in a simulated world.
"""

from __future__ import annotations
