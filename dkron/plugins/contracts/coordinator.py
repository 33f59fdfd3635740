"""What every coordinator must keep to: the whole suite, put together from its chapters."""

from __future__ import annotations

from dkron.plugins.contracts.commits import CommitPromises
from dkron.plugins.contracts.concurrency import ConcurrencyPromises
from dkron.plugins.contracts.leases import LeasePromises
from dkron.plugins.contracts.ranges import RangePromises
from dkron.plugins.contracts.watches import WatchPromises


class CoordinatorContract(RangePromises, CommitPromises, LeasePromises, WatchPromises, ConcurrencyPromises):
    """The suite for a coordinator.

    Define the fixture `connect`: a callable without arguments that returns a new coordinator, not yet open, over one and the
    same store, which is empty when the test begins; and the method `forget`, which makes the store forget changes. Override
    `lease_ttl` (nanoseconds) if the store does not grant leases of one second.
    """
