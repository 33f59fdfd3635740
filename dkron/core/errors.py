"""Every error that dkron raises on purpose.

::

    DkronError
    ├── InvalidInputError         a field, flag or parameter that cannot be right
    │   └── InvalidScheduleError  a schedule that is not in the grammar
    ├── NotFoundError             no such job, run, execution or member
    ├── ConflictError             right in itself, but not now: a busy slot, a job with dependents
    ├── NotLeaderError            only the leader may do this, and this server does not lead
    ├── StoreError
    │   ├── StoreUnavailableError   definitely nothing was written
    │   ├── OutcomeUnknownError     written or not: nobody knows yet (rule R2)
    │   ├── GuardFailedError        definitely nothing was written: a guarded key had changed
    │   ├── CompactedError          the watch asked for events that are gone: list again
    │   └── StoreFullError          definitely nothing was written: no room
    │       └── TooLargeError       not for this, at any time
    ├── LinkError                 the other end of a link said or did what it must not
    └── PluginError               a plugin that could not be loaded, or broke its promise

The message of each is a sentence for the person who reads it.
"""

from __future__ import annotations


class DkronError(Exception):
    """The root of the tree."""


class InvalidInputError(DkronError):
    """A value that cannot be right.

    Args:
        field: the field, flag or parameter, as the user spells it.
        problem: what is wrong with it, and what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidScheduleError(InvalidInputError):
    """A schedule that is not in the grammar."""

    def __init__(self, problem: str) -> None:
        super().__init__("schedule", problem)


class NotFoundError(DkronError):
    """There is no such thing."""


class ConflictError(DkronError):
    """Right in itself, but not in the present state."""


class NotLeaderError(DkronError):
    """Only the leader may do this.

    Args:
        leader: the name of the server that leads, or "" while none does.
    """

    def __init__(self, leader: str = "") -> None:
        who = f"server {leader} leads and could not be asked" if leader else "no server leads at the moment"
        super().__init__(f"{who}; try again in a second")
        self.leader = leader


class StoreError(DkronError):
    """The store did not do what it was asked."""


class StoreUnavailableError(StoreError):
    """The store could not be reached: definitely nothing was written."""


class OutcomeUnknownError(StoreError):
    """The store gave no definite answer: it may have written, or may do so later."""


class GuardFailedError(StoreError):
    """A guarded key had another revision: definitely nothing was written."""


class CompactedError(StoreError):
    """The events asked for are gone; list the keys again and watch from there."""


class StoreFullError(StoreError):
    """The store has no room: definitely nothing was written."""


class TooLargeError(StoreFullError):
    """The store never takes so much at once: definitely nothing was written."""


class LinkError(DkronError):
    """The other end of a link said or did what it must not."""


class PluginError(DkronError):
    """A plugin that could not be loaded, or broke its promise.

    Args:
        distribution: the distribution package that brought it, as pip names it.
        problem: what happened.
    """

    def __init__(self, distribution: str, problem: str) -> None:
        super().__init__(f"plugin {distribution}: {problem}")
        self.distribution = distribution
        self.problem = problem
