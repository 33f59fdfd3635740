"""A dkron job that fails when a file system runs full."""

from __future__ import annotations

import shutil
from typing import Annotated

import msgspec

from dkron.core.interfaces import Context, Outcome
from dkron.plugins import PluginSettings, hookimpl


class DiskConfig(msgspec.Struct, frozen=True):
    """What people write in a job's `executor_config`; dkron checks it when the job is stored."""

    path: Annotated[str, msgspec.Meta(description="any path on the file system")]
    free: Annotated[int, msgspec.Meta(ge=1, le=99, description="percent that must be free")] = 10

    def __post_init__(self) -> None:
        """Refuse what types cannot: the key, a colon, and a sentence."""
        if not self.path.startswith("/"):
            raise ValueError("path: must be absolute, such as /var")


class DiskExecutor:
    """Looks at one file system."""

    name = "disk"
    config = DiskConfig

    def run(self, context: Context) -> Outcome:
        """Do the work, in a thread of the worker's; an exception would be a failure too."""
        usage = shutil.disk_usage(context.config.path)
        free = 100 * usage.free // usage.total
        context.write(f"{context.config.path} has {free} % free\n")
        return Outcome(free >= context.config.free, f"less than {context.config.free} % free")


@hookimpl
def dkron_register_executors(settings: PluginSettings) -> list[DiskExecutor]:
    """Bring the executor; `settings.options` would hold what the config file says under `plugins: {disk: ...}`."""
    del settings
    return [DiskExecutor()]
