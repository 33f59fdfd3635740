from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from select import PIPE_BUF

import pytest

from dkron import logs

log = logging.getLogger("dkron.server.hub")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level


def lines(*, as_json: bool, level: str = "info", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    logs.setup(level, as_json=as_json, stream=stream)
    return stream


def test_a_line_for_people_has_time_level_logger_message_and_facts() -> None:
    stream = lines(as_json=False)
    log.info("%s joined", "a1", extra={"address": "10.0.0.5:9", "why": "it said so", "empty": ""})
    date, time, level, *rest = stream.getvalue().rstrip("\n").split(maxsplit=3)
    assert (len(date), len(time), level) == (10, 12, "INFO")
    assert rest == ['server.hub: a1 joined address=10.0.0.5:9 why="it said so" empty=""']


def test_a_json_line_has_the_same_as_members() -> None:
    stream = lines(as_json=True)
    log.warning("late", extra={"job": "backup", "by": 3, "set": {1}, "level": "mine"})
    line = json.loads(stream.getvalue())
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {"level": "warning", "logger": "server.hub", "message": "late", "job": "backup", "by": 3, "set": [1]}


@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_named_like_a_secret_is_masked(as_json: bool) -> None:  # noqa: FBT001 - a case
    stream = lines(as_json=as_json)
    names = ("password", "api_token", "encrypt", "key", "private_key", "Authorization")
    log.info("hello", extra=dict.fromkeys(names, "hunter2") | {"keys": "three"})
    assert "hunter2" not in stream.getvalue()
    assert "three" in stream.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_no_message_fakes_a_line_or_speaks_to_the_terminal(as_json: bool) -> None:  # noqa: FBT001 - a case
    stream = lines(as_json=as_json)
    log.info("a\nb\033[31m", extra={"fact": "c\nd\033[0m\udc80"})
    assert stream.getvalue().count("\n") == 1
    assert "\033" not in stream.getvalue()


def test_tracebacks_follow_the_line() -> None:
    text, as_json = lines(as_json=False), None
    try:
        raise ValueError("deep")  # noqa: TRY301 - it is the case
    except ValueError:
        log.exception("failed")
        as_json = lines(as_json=True)
        log.exception("failed")
    assert text.getvalue().endswith("ValueError: deep\n")
    assert json.loads(as_json.getvalue())["exception"].endswith("ValueError: deep")


def test_levels_hide_what_is_below() -> None:
    stream = lines(as_json=False, level="ERROR")
    log.warning("quiet")
    assert stream.getvalue() == ""


def test_only_terminals_get_colours() -> None:
    terminal = Terminal()
    lines(as_json=False, stream=terminal)
    log.error("red")
    assert "\033[31mERROR" in terminal.getvalue()


def test_libraries_do_not_chatter_but_their_warnings_come_through() -> None:
    stream = lines(as_json=False)
    logging.getLogger("aiohttp.access").info("GET /v1/jobs")
    logging.getLogger("asyncio").warning("slow")
    assert "GET" not in stream.getvalue()
    assert "asyncio: slow" in stream.getvalue()


def test_workers_import_it_cheaply() -> None:
    code = "import sys, dkron.logs; print([m for m in ('pydantic', 'aiohttp', 'click', 'yaml') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


class Pipe(io.StringIO):
    """A stream that remembers its writes, or cannot be written to."""

    def __init__(self, *, broken: Exception | None = None) -> None:
        super().__init__()
        self.broken = broken
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        if self.broken:
            raise self.broken
        self.writes.append(text)
        return super().write(text)


def test_what_is_logged_together_is_written_at_once_and_in_order() -> None:
    stream = Pipe()
    logs.setup("info", as_json=False, stream=stream)
    with logs.together():
        for number in range(3):
            logging.getLogger("dkron.test").info("line %d", number)
        assert stream.getvalue() == ""
    assert len(stream.writes) == 1
    logging.getLogger("dkron.test").info("line 3")
    assert re.findall(r"line \d", stream.getvalue()) == ["line 0", "line 1", "line 2", "line 3"]
    assert stream.getvalue().count("\n") == 4


def test_a_message_that_cannot_be_formatted_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Pipe()
    logs.setup("info", as_json=False, stream=stream)
    with logs.together():
        logging.getLogger("dkron.test").info("%d", "no number")
        logging.getLogger("dkron.test").info("the other")
    assert "the other" in stream.getvalue()
    assert "no number" in capsys.readouterr().err


def test_lines_that_cannot_be_written_harm_nobody() -> None:
    logs.setup("info", as_json=False, stream=Pipe(broken=OSError("no space left on device")))
    with logs.together():
        logging.getLogger("dkron.test").info("lost")


def test_a_write_that_fails_in_another_way_keeps_no_other_thread_from_logging() -> None:
    stream = Pipe(broken=ValueError("I/O operation on closed file"))
    logs.setup("info", as_json=False, stream=stream)
    with pytest.raises(ValueError, match="closed file"), logs.together():
        logging.getLogger("dkron.test").info("lost")
    stream.broken = None
    other = threading.Thread(target=logging.getLogger("dkron.test").info, args=("heard",), daemon=True)
    other.start()
    other.join(30)
    assert "heard" in stream.getvalue()


def test_many_lines_are_written_in_pieces_that_a_pipe_takes_whole() -> None:
    """The worker writes to the same pipe: what is longer may be torn apart by its lines."""
    stream = Pipe()
    logs.setup("info", as_json=True, stream=stream)
    with logs.together():
        for number in range(100):
            logging.getLogger("dkron.test").info("%d %s", number, "ü" * 150)
        logging.getLogger("dkron.test").info("x" * 5000)  # longer than any piece, and so one of its own
        logging.getLogger("dkron.test").info("end")
    assert max(len(piece.encode()) for piece in stream.writes[:-2]) <= PIPE_BUF
    assert all(piece.endswith("\n") for piece in stream.writes)
    assert len(stream.writes) < 20
    assert [json.loads(line)["message"].split()[0][:3] for line in stream.getvalue().splitlines()] == [
        *map(str, range(100)),
        "xxx",
        "end",
    ]


def test_what_is_together_may_be_part_of_more() -> None:
    stream = Pipe()
    logs.setup("info", as_json=False, stream=stream)
    with logs.together():
        logging.getLogger("dkron.test").info("line 0")
        with logs.together():
            logging.getLogger("dkron.test").info("line 1")
        logging.getLogger("dkron.test").info("line 2")
    assert re.findall(r"line \d", stream.getvalue()) == ["line 0", "line 1", "line 2"]


def test_where_logging_was_not_set_up_together_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().handlers = [caplog.handler]
    with logs.together():
        logging.getLogger("dkron.test").warning("here")
    assert caplog.messages == ["here"]
