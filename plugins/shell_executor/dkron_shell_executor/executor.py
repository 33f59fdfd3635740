"""Turns a job's configuration into the process that the worker runs."""

from __future__ import annotations

from dkron.core.interfaces import Command, Context
from dkron_shell_executor import config as read
from dkron_shell_executor.config import ShellConfig


class ShellExecutor:
    """Runs a command; the worker sees to its output, its limits and its end."""

    name = "shell"
    config = ShellConfig

    def command(self, context: Context) -> Command:
        """Describe the process."""
        config: ShellConfig = context.config
        user, group = read.parse_su(config.su)
        return Command(
            argv=list(read.parse_command(config.command, config.shell)),
            env={**read.parse_env(config.env), "ENV_JOB_NAME": context.job},
            cwd=config.cwd or None,
            stdin=read.parse_payload(config.payload),
            user=user,
            group=group,
            memory_limit=read.parse_mem_limit(config.mem_limit),
            timeout=read.parse_timeout(config.timeout),
        )
