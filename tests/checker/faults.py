"""What each kind of fault may excuse, and for how long.

The knowledge is here and not in the histories: whoever writes a history only names what was done. A fault excuses what it can
have caused and nothing else; a kind that is not in the table excuses nothing and makes the verdict unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Flag, auto
from typing import Final, NamedTuple

from checker.history import Allowances, Fault, Spec, last_of
from checker.spans import SECOND, Span, clock


class Harm(Flag):
    """What a fault may do."""

    NOTHING = 0
    DECIDING = auto()  # for a time nobody can decide: what falls due meanwhile comes late, or by the catch-up policy not at all
    RUNNING = auto()  # at its targets what is armed or runs may be lost, killed, refused or late
    FORGETTING = auto()  # what the store knew may be gone


BOTH: Final = Harm.DECIDING | Harm.RUNNING


class Known(NamedTuple):
    """What a kind of fault may do, and how many seconds after its end everything goes as before."""

    harm: Harm
    recovery: int = 10  # a leader's lease ends, another is elected, hears from the workers, and catches up


_DECIDING: Final = Known(Harm.DECIDING)
_RUNNING: Final = Known(Harm.RUNNING)
_BOTH: Final = Known(BOTH)
_STORE: Final = Known(Harm.DECIDING, 15)  # after a restart of the store leases last for their whole time again
_NOTHING: Final = Known(Harm.NOTHING)

KINDS: Final[dict[str, Known]] = {
    "kill-server": _DECIDING,
    "kill-worker": _RUNNING,
    "kill-node": _BOTH,  # server and worker, with all that they started
    "kill-all": _BOTH,
    "pause-server": _DECIDING,
    "pause-worker": _RUNNING,
    "pause-node": _BOTH,
    "new-journal": _RUNNING,  # a worker that comes back with an empty data directory
    "kill-store": _STORE,  # one member; the others go on
    "kill-store-majority": _STORE,
    "pause-store": _STORE,
    "slow-store": _STORE,
    "full-store": _STORE,
    "restore-store": Known(Harm.DECIDING | Harm.FORGETTING, 20),
    "compact-store": _NOTHING,
    "defragment-store": _STORE,
    "move-store-leader": _STORE,
    "revoke-lease": _DECIDING,
    "cut-store": _DECIDING,  # between a server and the store
    "cut-servers": _DECIDING,  # between servers
    "cut-link": _RUNNING,  # between a worker and servers, both ways
    "cut-link-up": _RUNNING,  # the servers do not hear the worker
    "cut-link-down": _RUNNING,  # the worker does not hear the servers
    "half-open-link": _RUNNING,
    "slow-link": _RUNNING,
    "reset-link": _RUNNING,
    "step-server-clock": _DECIDING,
    "step-worker-clock": _NOTHING,
    "full-disk": _RUNNING,
    "full-server-disk": _BOTH,  # its worker keeps the journal there
    "restart-server": _DECIDING,
    "restart-worker": _RUNNING,
    "rolling-restart": _BOTH,
    "slow-machine": _BOTH,  # not done but noticed: whoever wrote the history was held up himself
    "add-node": _NOTHING,
    "remove-node": _BOTH,
}


LONGEST_RECOVERY: Final = max(known.recovery for known in KINDS.values()) * SECOND


def harm_of(fault: Fault) -> Harm:
    """Return what a fault may do; nothing, if its kind is not known."""
    return KINDS.get(fault.kind, _NOTHING).harm


def span_of(fault: Fault) -> Span:
    """Return how long it lasted."""
    return Span(fault.begin, last_of(fault.end))


def tell(fault: Fault) -> str:
    """Say it in a few words."""
    end = f" to {clock(fault.end)}" if fault.end > fault.begin else "" if fault.end else " to the end"
    targets = f" of {', '.join(fault.targets)}" if fault.targets else ""
    return f"{fault.kind}{targets} at {clock(fault.begin)}{end}"


class Faults:
    """All faults of a history, and the questions that a judge asks about them."""

    def __init__(self, faults: Iterable[Fault], allow: Allowances) -> None:
        self.all = list(faults)
        self.allow = allow
        self._forgetting = [fault for fault in self.all if harm_of(fault) & Harm.FORGETTING]

    def over(self, fault: Fault) -> int:
        """Return when everything goes as before."""
        recovery = KINDS.get(fault.kind, _NOTHING).recovery * self.allow.patience
        return last_of(fault.end) + int(recovery * SECOND)

    def harming(self, harm: Harm, span: Span, nodes: Iterable[str] | None = None) -> list[Fault]:
        """Return the faults that may have done harm within a span, while they lasted or after; running: to these nodes."""
        wanted = None if nodes is None else frozenset(nodes)
        near = (fault for fault in self.all if Span(fault.begin, self.over(fault)).touches(span))
        return [fault for fault in near if _concerns(fault, harm, wanted)]

    def striking(self, harm: Harm, span: Span, nodes: Iterable[str] | None = None) -> Iterator[Fault]:
        """Go through the faults that lay on a span itself."""
        wanted = None if nodes is None else frozenset(nodes)
        for fault in self.all:
            if span_of(fault).touches(span) and _concerns(fault, harm, wanted):
                yield fault

    def deadline(self, instant: int, spec: Spec, nodes: Iterable[str]) -> int:
        """Return until when what is due at an instant has to start: later than usual only if faults are to blame.

        However long they last: what is older than the catch-up window is skipped instead.
        """
        return min(self.undisturbed(instant, nodes), instant + spec.catchup_window + self.allow.start + LONGEST_RECOVERY)

    def undisturbed(self, instant: int, nodes: Iterable[str] = (), harm: Harm = BOTH) -> int:
        """Return when, after an instant, there has surely been no such harm for long enough to start something."""
        nodes = frozenset(nodes)
        limit = instant + self.allow.start
        for fault in self.all:
            if fault.begin > limit:
                break
            if self.over(fault) >= instant and _concerns(fault, harm, nodes):
                limit = max(limit, self.over(fault))
        return limit

    def stillest(self, span: Span) -> int:
        """Return the longest time within a span in which surely one server led: each leader counts silence anew."""
        longest, since = 0, span.begin
        for fault in self.all:
            if harm_of(fault) & Harm.DECIDING and self.over(fault) >= since:
                longest = max(longest, min(fault.begin, span.end) - since)
                since = self.over(fault)
        return max(longest, span.end - since)

    def near(self, instant: int) -> list[Fault]:
        """Return what may have to do with something that went wrong then, for the explanation."""
        wide = Span(instant - LONGEST_RECOVERY - self.allow.start, instant + self.allow.start)
        return [fault for fault in self.all if span_of(fault).touches(wide)]

    def forgotten(self, instant: int) -> bool:
        """Tell whether the store may not know any more what it decided about an instant."""
        early = self.allow.lookahead + self.allow.guard
        return any(fault.since - early <= instant <= self.over(fault) for fault in self._forgetting)

    def erased(self, instant: int) -> bool:
        """Tell whether what was decided about an instant may have been decided in a time that the store then lost."""
        early = self.allow.lookahead + self.allow.guard
        return any(fault.since - early <= instant <= last_of(fault.end) + early for fault in self._forgetting)

    def relived(self, span: Span) -> bool:
        """Tell whether what lasted for a span was alive again meanwhile: the store went back to a time before its first end."""
        went_back = (fault for fault in self._forgetting if fault.begin <= span.end)
        return any(span.begin <= fault.since + self.allow.lookahead for fault in went_back)

    def astray(self, instant: int) -> bool:
        """Tell whether what was decided then may have been written to a store that had gone back, by a leader who did not know.

        It cannot be told from what the store shows as it was once, so nobody knows any more how it ended.
        """
        early = self.allow.lookahead + self.allow.guard
        return any(fault.begin - self.allow.guard <= instant <= last_of(fault.end) + early for fault in self._forgetting)

    def undone(self, written: int, later: int) -> bool:
        """Tell whether what was put on record at one time is off it at a later one: the store went back between them."""
        return any(fault.since <= written <= last_of(fault.end) and fault.begin <= later for fault in self._forgetting)

    def unknown_kinds(self) -> set[str]:
        """Name the kinds that are not in the table."""
        return {fault.kind for fault in self.all} - KINDS.keys()


def _concerns(fault: Fault, harm: Harm, nodes: frozenset[str] | None) -> bool:
    """Tell whether it does such harm; harm to what runs concerns only the fault's targets (all nodes, if it names none)."""
    does = harm_of(fault) & harm
    if does & Harm.DECIDING or does & Harm.FORGETTING:
        return True
    return bool(does & Harm.RUNNING) and (nodes is None or not fault.targets or not nodes.isdisjoint(fault.targets))
