from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import pytest
from dkron_etcd_store.access import Access
from dkron_etcd_store.client import Twice
from dkron_etcd_store.coordinator import EtcdCoordinator
from dkron_etcd_store.results import EtcdResultStore
from etcd3 import etcdrpc

from dkron.core.clock import SECOND
from dkron.core.interfaces import Coordinator, ResultStore
from dkron.plugins.testing import CoordinatorContract, ResultStoreContract

PATIENT = 10.0  # seconds: a healthy store answers definitely, but the machine may be busy
COMPACT = attrgetter("kv.Compact")


class EtcdContract(CoordinatorContract):
    lease_ttl = 2 * SECOND  # etcd grants no shorter ones
    patience = 45.0

    async def forget(self, store: Any) -> None:
        revision = await store.commit({}, {"other": b""})  # the newest revision outlives its compaction
        await store.client.call(COMPACT, etcdrpc.CompactionRequest(revision=revision, physical=True), Twice.NOTHING)


class TestOneMember(EtcdContract):
    @pytest.fixture
    def connect(self, one: Any, keyspace: str) -> Callable[[], Coordinator]:
        return lambda: EtcdCoordinator(one.access(), keyspace, deadline=PATIENT)


class TestThreeMembers(EtcdContract):
    """Each client begins at another member."""

    @pytest.fixture
    def connect(self, three: Any, keyspace: str) -> Callable[[], Coordinator]:
        endpoints = three.access().endpoints
        begun = iter(range(1000))

        def make() -> Coordinator:
            first = next(begun) % 3
            return EtcdCoordinator(Access(endpoints[first:] + endpoints[:first]), keyspace, deadline=PATIENT)

        return make


class EtcdResults(ResultStoreContract):
    patience = 45.0

    def make(self, access: Access, keyspace: str) -> ResultStore:
        results = EtcdResultStore(access, keyspace)
        results.client.deadline = PATIENT
        return results


class TestResultsOneMember(EtcdResults):
    @pytest.fixture
    def connect(self, one: Any, keyspace: str) -> Callable[[], ResultStore]:
        return lambda: self.make(one.access(), keyspace)


class TestResultsThreeMembers(EtcdResults):
    @pytest.fixture
    def connect(self, three: Any, keyspace: str) -> Callable[[], ResultStore]:
        return lambda: self.make(three.access(), keyspace)
