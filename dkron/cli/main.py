"""The program: its commands, loaded when they are used, and what becomes of errors.

Exit status: 0 done, 1 refused or failed, 2 used wrongly, 3 the server cannot be reached, 4 there is no such thing.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, Final, TypeGuard

import click

from dkron import __version__
from dkron.core.errors import DkronError, InvalidInputError, NotFoundError

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_FOUND: Final = 4
_INTERRUPTED: Final = 130  # as shells report SIGINT
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})

# Where each command lives, and its one line of help, so that `dkron --help` imports none of them.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "agent": ("dkron.cli.agent:agent", "Run a node of the cluster (with -server: a server and a worker)."),
    "job": ("dkron.cli.jobs:job", "List, show, apply, run, switch and delete jobs."),
    "executions": ("dkron.cli.executions:executions", "List a job's executions, newest first."),
    "logs": ("dkron.cli.executions:logs", "Print the output of a job's execution."),
    "stop": ("dkron.cli.executions:stop", "End a running execution."),
    "members": ("dkron.cli.cluster:members", "List the nodes of the cluster."),
    "leader": ("dkron.cli.cluster:leader", "Show which server leads."),
    "leave": ("dkron.cli.cluster:leave", "Make a server leave the cluster in order."),
    "etcd": ("dkron.cli.etcd:etcd", "Run etcd, the store of several servers, on this machine."),
    "schedule": ("dkron.cli.schedule:schedule", "Look at schedules without any server."),
    "plugins": ("dkron.cli.plugins:plugins", "List the installed plugins and what they bring."),
    "keygen": ("dkron.cli.keygen:keygen", "Make a key for --encrypt."),
    "version": ("dkron.cli.main:version", "Print the version."),
    "completion": ("dkron.cli.completion:completion", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table alone."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.version_option(__version__, prog_name="dkron")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Distributed cron: every due run happens, once and only once."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@click.command(help=COMMANDS["version"][1])
def version() -> None:
    """Print the version."""
    click.echo(f"Name: Dkron\nVersion: {__version__}\nPython: {platform.python_version()}")


def main() -> None:
    """Run the program and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the program; return its exit status. An error is one line on standard error."""
    _soften_output()
    try:
        status: Any = cli.main(list(arguments), prog_name="dkron", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except BrokenPipeError:  # the reader has gone, `dkron job list | head`
        _give_output_up()
        return 0
    except Exception as error:  # whatever it is, people get one line
        if sys.flags.dev_mode and not isinstance(error, DkronError | click.ClickException):
            raise
        if _unwritable(error):
            _give_output_up()
        message, code = _explain(error)
        click.echo(f"dkron: {message}", err=True)
        return code
    return status if isinstance(status, int) else 0


def _soften_output() -> None:
    """Have what the terminal cannot show replaced, rather than end in the midst of an output."""
    if sys.stdout is None:  # closed, `>&-`
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _give_output_up() -> None:
    """Let the interpreter not try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unwritable(error: Exception) -> TypeGuard[OSError]:
    """Tell whether the output could not be written: the disk is full, or the terminal gone. All else has its own errors."""
    return isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message()), error.exit_code
    if isinstance(error, DkronError):
        code = USAGE if isinstance(error, InvalidInputError) else NOT_FOUND if isinstance(error, NotFoundError) else FAILED
        return _one_line(str(error)), code
    if _unwritable(error):
        return f"cannot write the output: {error.strerror}", FAILED
    bug = f"{type(error).__name__}: {error}"
    return f"this should not happen: {_one_line(bug)} (with PYTHONDEVMODE=1 set it tells where)", FAILED


def _one_line(text: str) -> str:
    return " ".join(text.split())
