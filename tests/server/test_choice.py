from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dkron.config import Settings
from dkron.core.errors import InvalidInputError
from dkron.plugins.hookspecs import StoreOptions
from dkron.server import choice, stores
from dkron.server.choice import EMBEDDED, ETCD, FILE


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither files nor variables of whoever runs the tests count."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("DKRON_")]:
        monkeypatch.delenv(name)


class Handler(BaseHTTPRequestHandler):
    """Answers as an etcd, or as something else."""

    body: ClassVar[bytes] = b""
    gate: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.gate.wait(30)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    """What listens where a local etcd would, in a thread that may have to wait for this one."""
    monkeypatch.setattr(choice, "PATIENCE", 20.0)
    handler = type("Local", (Handler,), {"body": json.dumps({"etcdserver": "3.6.16"}).encode(), "gate": threading.Event()})
    handler.gate.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who does not wait is gone when the answer comes
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(choice, "LOCAL", server.server_address)
    yield handler
    handler.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "LOCAL", ("127.0.0.1", 1))


class Plugins:
    """Plugins that make stores which remember their options."""

    def __init__(self, *schemes: str, **blocked: str) -> None:
        self.schemes = schemes
        self.blocked = blocked

    def coordinators(self) -> dict[str, Any]:
        return {scheme: lambda options, scheme=scheme: (scheme, options) for scheme in self.schemes}

    result_stores = coordinators

    def left_out(self, name: str) -> str:
        return self.blocked.get(name, "")


def chosen(data_dir: Path, *schemes: str, **settings: Any) -> tuple[str, StoreOptions, str, StoreOptions]:
    made: Any = stores.choose(Settings(data_dir=str(data_dir), **settings), Plugins(*schemes))  # type: ignore[arg-type]
    return *made.coordinator, *made.results


BOTH = (EMBEDDED, ETCD)


@pytest.mark.usefixtures("local")
class TestALocalEtcd:
    def test_it_is_used(self, tmp_path: Path) -> None:
        scheme, options, *_ = chosen(tmp_path, *BOTH)
        assert (scheme, options.urls) == (ETCD, ("{}:{}".format(*choice.LOCAL),))

    def test_not_without_the_plugin(self, tmp_path: Path) -> None:
        assert chosen(tmp_path, EMBEDDED)[0] == EMBEDDED

    def test_something_else_is_not_taken_for_it(self, tmp_path: Path, local: type[Handler]) -> None:
        for body in (b"", b"hello", b"[]", b"1", b'{"version": 1}', b"\xff"):
            local.body = body
            assert not choice.answers(*choice.LOCAL)
        assert chosen(tmp_path, *BOTH)[0] == EMBEDDED

    def test_what_does_not_answer_is_not_waited_for(self, local: type[Handler], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "PATIENCE", 0.15)
        local.gate.clear()
        began = time.monotonic()
        assert not choice.answers(*choice.LOCAL)
        assert time.monotonic() - began < 15


class TestKept:
    def test_the_first_choice_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "answers", lambda *_: False)
        assert chosen(tmp_path, *BOTH)[0] == EMBEDDED
        monkeypatch.setattr(choice, "answers", lambda *_: True)
        assert chosen(tmp_path, *BOTH)[0] == EMBEDDED

    def test_an_etcd_that_is_away_is_not_replaced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "answers", lambda *_: True)
        first = chosen(tmp_path, *BOTH)
        monkeypatch.setattr(choice, "answers", lambda *_: False)
        assert chosen(tmp_path, *BOTH) == first
        with pytest.raises(
            InvalidInputError, match=r"etcd-machines: no plugin brings .*not installed: pip install dkron-etcd-store"
        ):
            chosen(tmp_path, EMBEDDED)

    @pytest.mark.usefixtures("nobody")
    def test_the_machines_are_kept_too(self, tmp_path: Path) -> None:
        chosen(tmp_path, *BOTH, etcd_machines=("a:1", "b"))
        assert chosen(tmp_path, *BOTH)[1].urls == ("a:1", "b")
        chosen(tmp_path, *BOTH, etcd_machines="c")
        assert (tmp_path / FILE).read_text() == "etcd c\n"

    @pytest.mark.usefixtures("nobody")
    def test_what_is_configured_wins(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        chosen(tmp_path, *BOTH)
        with caplog.at_level(logging.INFO):
            assert chosen(tmp_path, *BOTH, etcd_machines="a")[0] == ETCD
        assert "the embedded store in" in caplog.text
        assert "etcd at a keeps the state: etcd-machines say so" in caplog.text

    @pytest.mark.usefixtures("nobody")
    def test_the_log_says_why(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        chosen(tmp_path, *BOTH)
        chosen(tmp_path, *BOTH)
        assert "the embedded store keeps the state: no etcd-machines are configured, and no etcd answers at" in caplog.text
        assert f"it was chosen at the first start ({tmp_path / FILE})" in caplog.text

    def test_what_is_installed_but_left_out_is_not_to_be_installed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        plugins: Any = Plugins(sqlite="dkron-sqlite-store", etcd="acme-etcd")
        with pytest.raises(InvalidInputError) as caught:
            stores.choose(Settings(data_dir=str(tmp_path)), plugins)
        assert str(caught.value) == (
            "store: no plugin brings the store sqlite (there is none), as the configuration leaves dkron-sqlite-store out: "
            "look at block-plugins and only-plugins"
        )
        assert "no etcd-machines are configured, and the configuration leaves acme-etcd out" in caplog.text
        with pytest.raises(InvalidInputError, match="as dkron-sqlite-store is not installed: pip install dkron-sqlite-store"):
            stores.choose(Settings(data_dir=str(tmp_path)), Plugins(ETCD))  # type: ignore[arg-type]

    def test_a_refused_start_chooses_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "answers", lambda *_: False)
        for settings in ({"join": "127.0.0.1"}, {"retry_join": "127.0.0.1"}, {"bootstrap_expect": 3}):
            with pytest.raises(InvalidInputError, match="name it with --etcd-machines"):
                chosen(tmp_path, *BOTH, **settings)
        assert not (tmp_path / FILE).exists()

    @pytest.mark.parametrize("text", ["", "\n"])
    def test_a_file_that_says_nothing(self, tmp_path: Path, text: str) -> None:
        (tmp_path / FILE).write_text(text)
        with pytest.raises(InvalidInputError, match=r"data-dir: .*store\.choice cannot be read"):
            chosen(tmp_path, *BOTH)

    def test_a_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InvalidInputError, match="data-dir: "):
            chosen(tmp_path / "file", *BOTH, etcd_machines="a")


@pytest.mark.usefixtures("nobody")
def test_the_stores_are_told_how_to_get_in(tmp_path: Path) -> None:
    _, options, _, results = chosen(
        tmp_path, *BOTH, etcd_machines="a", etcd_cafile="ca", etcd_certfile="cert", etcd_keyfile="key",
        etcd_username="user", etcd_password="secret", keyspace="/other",
    )  # fmt: skip
    assert results == options
    assert options == StoreOptions(
        urls=("a",), keyspace="/other", data_dir=str(tmp_path), username="user", password="secret", cafile="ca", certfile="cert",
        keyfile="key",
    )  # fmt: skip


@pytest.mark.usefixtures("nobody")
def test_results_may_be_kept_elsewhere(tmp_path: Path) -> None:
    assert chosen(tmp_path, *BOTH, etcd_machines="a", result_store="sqlite")[2] == EMBEDDED
    scheme, _, results_scheme, results = chosen(tmp_path / "b", *BOTH, result_store="etcd://a,b")
    assert (scheme, results_scheme, results.urls) == (EMBEDDED, ETCD, ("etcd://a,b",))
