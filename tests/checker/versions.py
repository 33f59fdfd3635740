"""Which specification of a job was in force when, as far as its requests tell.

A request that was answered took effect between its begin and its end; one without an answer at any time from its begin until
`linger` after, or never. So at each instant there is a set of specifications that may have been in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from checker.faults import Faults, Harm, harm_of
from checker.history import Allowances, Answer, Kind, Request, Spec
from checker.spans import FOREVER, Span
from msgspec import structs


class Put(NamedTuple):
    """The store's log shows that this version was written; it was seen there at `at`."""

    job: str
    spec: Spec
    at: int


class Version(NamedTuple):
    """A specification (None: there is no such job) that may have been in force from `begin` on and until `dead`.

    By `sure` it had taken effect or never would.
    """

    spec: Spec | None
    begin: int
    sure: int
    dead: int = FOREVER

    def holds(self, begin: int, end: int) -> bool:
        """Tell whether it may have been in force at some time in [begin, end]."""
        return self.begin <= end and begin < self.dead


class _Proof(NamedTuple):
    """From begin to end, at some instant, exactly this was in force; `edit`: it took effect then."""

    spec: Spec | None
    begin: int
    end: int
    edit: bool


class Timeline:
    """The versions of one job."""

    def __init__(self, versions: Iterable[Version]) -> None:
        self.versions = sorted(versions, key=lambda version: version.begin)

    def around(self, begin: int, end: int) -> list[Version]:
        """Return what may have been in force at some time in [begin, end]."""
        return [version for version in self.versions if version.holds(begin, end)]

    def specs(self, begin: int, end: int) -> list[Spec]:
        """Return the specifications that may have been in force; none that says that there was no such job."""
        return [version.spec for version in self.around(begin, end) if version.spec is not None]


def timeline(requests: Iterable[Request], allow: Allowances, faults: Faults, log: Iterable[Put] | None = None) -> Timeline:
    """Work out the versions of one job from its requests, and the store's log if there is a whole one."""
    versions, proofs = [Version(None, 0, 0)], []
    for request in _dated(requests):
        if request.answer is Answer.FAIL:
            continue
        if request.kind is Kind.READ and request.answer is Answer.OK:  # a server's own copy may be some time behind
            proofs.append(_Proof(request.spec, request.begin - allow.stale, request.end, edit=False))
        elif request.edits and request.answer is Answer.OK:
            versions.append(Version(request.spec, request.begin, request.end))
            proofs.append(_Proof(request.spec, request.begin, request.end, edit=True))
        elif request.edits:
            version, proof = _unanswered(request, allow, log)
            versions += version
            proofs += proof
    found = _ended(versions, proofs)
    return Timeline(_ended([*versions, *_reborn(found, faults, allow)], proofs))


def _dated(requests: Iterable[Request]) -> list[Request]:
    """Fill in when the job was created, where no answer told it, from a later one that did."""
    created_at, found = 0, []
    for request in sorted(requests, key=lambda each: each.begin, reverse=True):
        spec = request.spec
        if request.kind is Kind.DELETE:
            created_at = 0
        elif spec is not None and spec.created_at:
            created_at = spec.created_at
        elif spec is not None:
            request = structs.replace(request, spec=structs.replace(spec, created_at=created_at))  # noqa: PLW2901
        found.append(request)
    return found[::-1]


def _unanswered(request: Request, allow: Allowances, log: Iterable[Put] | None) -> tuple[list[Version], list[_Proof]]:
    """See what a request without an answer may have done; the log, which has everything, may know better."""
    version = Version(request.spec, request.begin, (request.end or request.begin) + allow.linger)
    spec = request.spec
    if log is None or spec is None or not spec.mark:
        return [version], []
    seen = next((put.at for put in log if put.at >= request.begin and spec.same(put.spec)), None)
    if seen is None:
        return [], []
    if request.kind is Kind.TOGGLE:  # its mark is an earlier put's: what was seen may be something else
        return [version], []
    return [version._replace(sure=seen)], [_Proof(spec, request.begin, seen, edit=True)]


def _ended(versions: list[Version], proofs: list[_Proof]) -> list[Version]:
    """See until when each version may have been in force: until another one surely was, after it had surely taken effect."""
    return [version._replace(dead=min(_ends(version, proofs), default=FOREVER)) for version in versions]


def _ends(version: Version, proofs: list[_Proof]) -> Iterator[int]:
    for proof in proofs:
        if proof.begin > version.sure and (proof.edit or not _same(proof.spec, version.spec)):
            yield proof.end


def _same(one: Spec | None, other: Spec | None) -> bool:
    return one is other if one is None else one.same(other)


def _reborn(versions: Iterable[Version], faults: Faults, allow: Allowances) -> Iterator[Version]:
    """Let what was in force when the store was saved be in force again, perhaps, after the store was restored."""
    for fault in faults.all:
        if harm_of(fault) & Harm.FORGETTING:
            saved = Span(fault.since - allow.guard, fault.since + allow.guard)
            for version in versions:
                if version.holds(*saved):
                    yield Version(version.spec, fault.begin, faults.over(fault))
