from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from dkron.cli.etcd import arguments, etcd
from dkron.cli.main import FAILED, run
from dkron.core.errors import InvalidInputError


def told(*flags: str) -> dict[str, str]:
    """Return what etcd is told, given the flags of `dkron etcd`."""
    options: dict[str, Any] = etcd.make_context("etcd", list(flags)).params
    return {name: value for name, _, value in (word.partition("=") for word in arguments(options))}


def test_by_default_it_is_alone_and_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert told("--name", "one") == {
        "--name": "one",
        "--data-dir": f"{tmp_path}/dkron.data/etcd",
        "--logger": "zap",
        "--listen-client-urls": "http://127.0.0.1:2379",
        "--advertise-client-urls": "http://127.0.0.1:2379",
        "--listen-peer-urls": "http://127.0.0.1:2380",
        "--initial-advertise-peer-urls": "http://127.0.0.1:2380",
        "--initial-cluster": "one=http://127.0.0.1:2380",
        "--initial-cluster-state": "new",
        "--quota-backend-bytes": str(2 << 30),
        "--auto-compaction-mode": "periodic",
        "--auto-compaction-retention": "60s",
    }


def test_all_interfaces_are_listened_on_but_not_advertised() -> None:
    found = told("--client-addr", ":2379", "--peer-addr", ":3000")
    assert found["--listen-client-urls"] == "http://0.0.0.0:2379"
    assert found["--listen-peer-urls"] == "http://0.0.0.0:3000"
    assert "0.0.0.0" not in found["--advertise-client-urls"] + found["--initial-cluster"]
    assert found["--initial-advertise-peer-urls"].endswith(":3000")


def test_ports_and_schemes_of_members_may_be_left_out() -> None:
    found = told("--initial-cluster", "a=10.0.0.5, b=10.0.0.6:3000", "--initial-cluster", "c=https://10.0.0.7:1")
    assert found["--initial-cluster"] == "a=http://10.0.0.5:2380,b=http://10.0.0.6:3000,c=https://10.0.0.7:1"


def test_certificates_count_for_clients_and_members() -> None:
    found = told("--cafile", "ca", "--certfile", "cert", "--keyfile", "key")
    assert found["--listen-client-urls"].startswith("https://")
    assert found["--initial-cluster"].partition("=")[2].startswith("https://")
    for whose in ("", "peer-"):
        assert (found[f"--{whose}cert-file"], found[f"--{whose}key-file"]) == ("cert", "key")
        assert found[f"--{whose}trusted-ca-file"] == "ca"
        assert f"--{whose}client-cert-auth" in found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--client-addr", "a b"], "--client-addr: must be host:port"),
        (["--peer-addr", "a:99999"], "--peer-addr: must be host:port"),
        (["--initial-cluster", "10.0.0.5:2380"], "--initial-cluster: must be NAME=HOST:PORT"),
        (["--initial-cluster", "a=b c"], "--initial-cluster: must be host:port"),
        (["--quota", "much"], "--quota: must be a size, such as 2GB, not 'much'"),
        (["--auto-compaction", "5"], "--auto-compaction: '5' is not a duration"),
        (["--auto-compaction", "30s"], "--auto-compaction: must be 1m or longer"),
        (["--cafile", "ca"], "--certfile: TLS needs a certificate and its key"),
        (["--certfile", "cert"], "--certfile: TLS needs a certificate and its key"),
    ],
)
def test_bad_values_are_named(flags: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        told(*flags)
    assert str(caught.value).startswith(message)


def test_flags_of_etcd_itself_come_after_two_hyphens() -> None:
    context = etcd.make_context("etcd", ["--name", "one", "--", "--heartbeat-interval=50"])
    assert context.params["flags"] == ("--heartbeat-interval=50",)
    with pytest.raises(click.NoSuchOption):
        etcd.make_context("etcd", ["--heartbeat-interval=50"])


def test_without_an_etcd_it_says_where_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("executable", "prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["etcd"]) == FAILED
    assert "extras/etcd/build.py" in capsys.readouterr().err


def test_the_build_names_what_is_missing(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "extras" / "etcd" / "build.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("there is no `go` on PATH: install Go")
    assert list(tmp_path.iterdir()) == []
