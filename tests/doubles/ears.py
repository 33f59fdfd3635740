"""Notifiers that hear, fail, or hang."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dkron.core.models import Notice


class Ear:
    """A notifier: fails so many times, or for ever; or hangs."""

    name = "ear"

    def __init__(self, failures: int = 0, *, hangs: bool = False) -> None:
        self.failures = failures
        self.hangs = hangs
        self.told: list[str] = []
        self.asked: list[float] = []

    async def notify(self, notice: Notice) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")
        self.told.append(notice.id)


class BigEar(Ear):
    """A notifier that takes several at once, or fails to so many times."""

    def __init__(self, failures: int = 0, *, never: str = "", hangs_at_once: bool = False) -> None:
        super().__init__()
        self.failures_at_once = failures
        self.hangs_at_once = hangs_at_once
        self.never = never
        self.at_once: list[list[str]] = []

    async def notify(self, notice: Notice) -> None:
        if notice.id == self.never:
            raise RuntimeError("not this one")
        await super().notify(notice)

    async def notify_all(self, notices: Sequence[Notice]) -> None:
        self.at_once.append([notice.id for notice in notices])
        if self.hangs_at_once:
            await asyncio.get_running_loop().create_future()
        if self.failures_at_once or self.never in self.at_once[-1]:
            self.failures_at_once -= 1
            raise RuntimeError("not all of them")
        self.told += self.at_once[-1]
