from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from aiohttp import web
from dkron_http_executor import HttpConfig, HttpExecutor

from dkron.core.interfaces import Outcome
from dkron.plugins.testing import RecordingContext

Serve = Callable[..., Awaitable[str]]
EXECUTOR = HttpExecutor()  # one for the whole life of a process, as in a worker


class Files(NamedTuple):
    """PEM files made for one test run: an authority, and a server and a client that it signed."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    locked_key: Path


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    constraints = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(folder, "req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", *constraints)
    (folder / "extensions").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    for name in ("server", "client"):
        openssl(folder, "req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    openssl(folder, "ec", "-in", "client.key", "-out", "locked.key", "-aes256", "-passout", "pass:hunter2")
    return Files(*(folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key", "locked.key")))


async def call(**config: str) -> tuple[Outcome, bytes]:
    context = RecordingContext(msgspec.convert({"method": "GET"} | config, HttpConfig, strict=False))
    outcome = await EXECUTOR.run(context)
    return outcome, context.output


async def hello(request: web.Request) -> web.Response:
    del request
    return web.Response(text="hello")


def server_tls(files: Files, *, ask_client: bool = False) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.authority))
    tls.load_cert_chain(files.server, files.server_key)
    tls.verify_mode = ssl.CERT_REQUIRED if ask_client else ssl.CERT_NONE
    return tls


async def test_a_server_that_nobody_vouches_for_is_refused(serve: Serve, files: Files) -> None:
    outcome, _ = await call(url=await serve(hello, server_tls(files)))
    assert not outcome.success
    assert "certificate verify failed" in outcome.message


async def test_tls_no_verify_peer_takes_any_server(serve: Serve, files: Files) -> None:
    outcome, _ = await call(url=await serve(hello, server_tls(files)), tlsNoVerifyPeer="true")
    assert outcome.success, outcome.message


async def test_tls_needs_no_thread_that_others_keep_busy(serve: Serve, files: Files) -> None:
    over, pool = threading.Event(), ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(over.wait)
    url = await serve(hello, tls=server_tls(files))
    outcome, _ = await call(url=url, tlsNoVerifyPeer="true", timeout="10")
    over.set()
    assert outcome.success


async def test_tls_root_cas_file_is_trusted(serve: Serve, files: Files) -> None:
    outcome, _ = await call(url=await serve(hello, server_tls(files)), tlsRootCAsFile=str(files.authority))
    assert outcome.success, outcome.message


async def test_tls_certificate_is_presented(serve: Serve, files: Files) -> None:
    url = await serve(hello, server_tls(files, ask_client=True))
    trust = {"url": url, "tlsRootCAsFile": str(files.authority)}
    outcome, _ = await call(**trust)
    assert not outcome.success
    outcome, _ = await call(**trust, tlsCertificateFile=str(files.client), tlsCertificateKeyFile=str(files.client_key))
    assert outcome.success, outcome.message


async def test_tls_files_that_are_wrong_fail_the_execution(serve: Serve, files: Files) -> None:
    url = await serve(hello, server_tls(files))
    for config, complaint in (
        ({"tlsRootCAsFile": "/no/such"}, "tlsRootCAsFile: No such file or directory: /no/such"),
        ({"tlsRootCAsFile": str(files.server_key)}, "tlsRootCAsFile: "),
        ({"tlsCertificateFile": "/no/such"}, "tlsCertificateFile: No such file"),
        ({"tlsCertificateFile": str(files.client)}, "tlsCertificateFile: no certificate and key that fit"),
        (
            {"tlsCertificateFile": str(files.client), "tlsCertificateKeyFile": str(files.server_key)},
            "tlsCertificateKeyFile: no certificate and key that fit",
        ),
        (
            {"tlsCertificateFile": str(files.client), "tlsCertificateKeyFile": str(files.locked_key)},
            "tlsCertificateKeyFile: no certificate and key that fit",
        ),
    ):
        outcome, output = await call(url=url, **config)
        assert not outcome.success
        assert outcome.message.startswith(complaint)
        assert output == b""
