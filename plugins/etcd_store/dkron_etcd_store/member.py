"""One member of etcd, as seen through one endpoint: a channel of its own, and what can be asked over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import grpc
from etcd3 import etcdrpc

from dkron_etcd_store.access import Endpoint

# `keepalive_timeout_ms` is without effect in gRPC: `ping_timeout_ms` is what ends a connection whose other end is silent. Its
# time is the least that etcd permits. A channel with connections of its own: another channel's large answers do not stand
# before ours. Retries are ours alone, for only we know what may be sent twice.
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 1500),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)

Call = Any  # generated code and gRPC have no types
Method = Callable[["Member"], Call]


class Member:
    """A member. Make it in the event loop that uses it."""

    def __init__(self, endpoint: Endpoint, credentials: grpc.ChannelCredentials | None) -> None:
        self.name = str(endpoint)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(self.name, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(self.name, credentials, options=CHANNEL_OPTIONS)
        self.kv = etcdrpc.KVStub(self._channel)
        self.lease = etcdrpc.LeaseStub(self._channel)
        self.watch = etcdrpc.WatchStub(self._channel).Watch
        self.authenticate = etcdrpc.AuthStub(self._channel).Authenticate
        self.status = etcdrpc.MaintenanceStub(self._channel).Status
        # A stream, but one question with one answer over it looks the same on the wire.
        self.keep_alive = self._channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=etcdrpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=etcdrpc.LeaseKeepAliveResponse.FromString,
        )

    async def connected(self, patience: float) -> bool:
        """Wait until there is a connection; tell at once if it was just tried in vain. What is not sent is surely not done."""
        state = self._channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return True
        try:
            async with asyncio.timeout(patience):
                while state in {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING}:
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return bool(state is grpc.ChannelConnectivity.READY)

    async def close(self, grace: float) -> None:
        """Let what is under way end, and close the connection."""
        await self._channel.close(grace)


RANGE: Final[Method] = attrgetter("kv.Range")
TXN: Final[Method] = attrgetter("kv.Txn")
GRANT: Final[Method] = attrgetter("lease.LeaseGrant")
KEEP: Final[Method] = attrgetter("keep_alive")
REVOKE: Final[Method] = attrgetter("lease.LeaseRevoke")
AUTHENTICATE: Final[Method] = attrgetter("authenticate")
STATUS: Final[Method] = attrgetter("status")
LINEARIZABLE: Final = frozenset({RANGE, TXN})  # their answers show how far etcd has come
