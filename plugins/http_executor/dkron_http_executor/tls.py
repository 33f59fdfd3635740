"""TLS contexts: made once for each combination of files, and again when a file changes."""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from dkron_http_executor.config import HttpConfig

_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="tls")


class _File(NamedTuple):
    """A file as it is now; another content is another value, so that a renewed certificate is noticed."""

    key: str
    path: str
    changed: int
    size: int


async def tls_for(config: HttpConfig) -> ssl.SSLContext | bool:
    """Return the context for a job; True is aiohttp's own, which trusts what the system trusts.

    Raises:
        ValueError: a file cannot be read or does not hold what it should; the sentence names the key.
    """
    certificate = _file("tlsCertificateFile", config.tls_certificate_file)
    key = _file("tlsCertificateKeyFile", config.tls_certificate_key_file)
    roots = _file("tlsRootCAsFile", config.tls_root_cas_file)
    if not (config.tls_no_verify_peer or certificate or roots):
        return True
    # Reading files and the system's certificates takes tens of milliseconds, so that happens in a thread; and not in one of those
    # that other plugins' code may keep busy.
    return await asyncio.get_running_loop().run_in_executor(
        _THREADS, _context, config.tls_no_verify_peer, certificate, key, roots
    )


@lru_cache(maxsize=256)
def _context(no_verify: bool, certificate: _File | None, key: _File | None, roots: _File | None) -> ssl.SSLContext:  # noqa: FBT001
    context = ssl.create_default_context() if roots is None else _trusting(roots)
    if no_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        _present(context, certificate, key)
    return context


def _file(key: str, path: str) -> _File | None:
    if not path:
        return None
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {getattr(error, 'strerror', None) or error}: {path}") from None
    return _File(key, path, found.st_mtime_ns, found.st_size)


def _trusting(roots: _File) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=roots.path)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{roots.key}: {error.strerror or error}: {roots.path}") from None


def _present(context: ssl.SSLContext, certificate: _File, key: _File | None) -> None:
    try:
        # An encrypted key would make OpenSSL ask for its password on the terminal; "" makes it fail instead.
        context.load_cert_chain(certificate.path, key.path if key else None, password="")
    except (OSError, ssl.SSLError) as error:
        culprit = key or certificate
        raise ValueError(f"{culprit.key}: no certificate and key that fit: {error.strerror or error}: {culprit.path}") from None
