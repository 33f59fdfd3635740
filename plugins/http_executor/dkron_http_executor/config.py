"""What a job may say in `executor_config`, checked when the job is stored."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import re2  # type: ignore[import-untyped]
from msgspec import Meta, field
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110: methods and header names
_CODES: Final = re.compile(r"([1-5])xx|([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?", re.IGNORECASE)
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})  # follow from the body, whatever the job says
_SUCCESS: Final = range(200, 400)
_LONGEST_TIMEOUT: Final = 366 * 24 * 3600  # seconds
_SHOWN: Final = 60  # characters of a bad value in its error

Expected = tuple[range, ...]


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The keys, as Dkron spells them."""

    method: Annotated[str, Meta(description="HTTP method, such as GET or POST")]
    url: Annotated[str, Meta(description="what to call, with http:// or https://")]
    headers: Annotated[str, Meta(description='JSON array of headers, such as ["Accept: text/plain"]')] = ""
    body: Annotated[str, Meta(description="body of the request, whatever the method")] = ""
    timeout: Annotated[
        int, Meta(ge=0, le=_LONGEST_TIMEOUT, description="seconds for the whole exchange; 0: no limit of its own")
    ] = 30
    expect_code: Annotated[
        str, Meta(description="status codes that are a success, such as 200,206 or 2xx or 200-299; by default 200-399")
    ] = field(default="", name="expectCode")
    expect_body: Annotated[str, Meta(description="regular expression (RE2) that must be found in the response body")] = field(
        default="", name="expectBody"
    )
    debug: Annotated[str, Meta(description="if not empty, request and response heads are written to the output")] = ""
    tls_no_verify_peer: Annotated[bool, Meta(description="true: accept any certificate of the server")] = field(
        default=False, name="tlsNoVerifyPeer"
    )
    tls_certificate_file: Annotated[str, Meta(description="client certificate, a PEM file on the agent")] = field(
        default="", name="tlsCertificateFile"
    )
    tls_certificate_key_file: Annotated[str, Meta(description="its private key, if it is in another file")] = field(
        default="", name="tlsCertificateKeyFile"
    )
    tls_root_cas_file: Annotated[str, Meta(description="certificates to trust instead of the system's, a PEM file")] = field(
        default="", name="tlsRootCAsFile"
    )

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.method):
            raise ValueError(f"method: must be an HTTP method such as GET, not {self.method[:_SHOWN]!r}")
        parse_url(self.url)
        parse_headers(self.headers)
        parse_codes(self.expect_code)
        parse_pattern(self.expect_body)
        if self.tls_certificate_key_file and not self.tls_certificate_file:
            raise ValueError("tlsCertificateKeyFile: is of no use without tlsCertificateFile")

    @property
    def debugging(self) -> bool:
        """Tell whether the heads are written to the output."""
        return self.debug.lower() not in {"", "0", "false"}


@lru_cache(maxsize=1024)
def parse_url(text: str) -> URL:
    """Read `url`. Raises `ValueError`."""
    try:
        url = URL(text)
    except ValueError as error:
        raise ValueError(f"url: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host or not text.isprintable():
        raise ValueError(f"url: must start with http:// or https:// and a host, not {text[:_SHOWN]!r}")
    return url


@lru_cache(maxsize=1024)
def parse_headers(text: str) -> CIMultiDictProxy[str]:
    """Read `headers`; only the first colon parts name and value. Raises `ValueError`."""
    headers: CIMultiDict[str] = CIMultiDict()
    for entry in _entries(text):
        name, value = _header(entry)
        if name.lower() not in _FRAMING:
            headers.add(name, value)
    return CIMultiDictProxy(headers)


def _entries(text: str) -> list[str]:
    try:
        entries: Any = msgspec.json.decode(text) if text.strip() else []
    except (msgspec.DecodeError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError('headers: must be a JSON array of texts, such as ["Accept: text/plain"]')
    return entries


def _header(entry: str) -> tuple[str, str]:
    name, colon, value = entry.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not _TOKEN.fullmatch(name):
        raise ValueError(f'headers: each must be "Name: value", not {entry[:_SHOWN]!r}')
    if any(mark in value for mark in "\r\n\0"):
        raise ValueError(f"headers: the value of {name[:_SHOWN]} must be one line")
    return name, value


@lru_cache(maxsize=1024)
def parse_codes(text: str) -> Expected:
    """Read `expectCode`. Raises `ValueError`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return tuple(_codes(word) for word in words) or (_SUCCESS,)


def _codes(word: str) -> range:
    match = _CODES.fullmatch(word)
    if match is None:
        raise ValueError(f"expectCode: must be status codes such as 200,206 or 2xx or 200-299, not {word[:_SHOWN]!r}")
    if match[1]:
        return range(int(match[1]) * 100, int(match[1]) * 100 + 100)
    first, last = int(match[2]), int(match[3] or match[2])
    if last < first:
        raise ValueError(f"expectCode: {word} ends before it starts")
    return range(first, last + 1)


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> Any:  # noqa: ANN401 - re2 has no types
    """Compile `expectBody`; RE2 takes time linear in the body, whatever the expression. Raises `ValueError`."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        (reason,) = error.args
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"expectBody: is no regular expression: {shown[: 2 * _SHOWN]}") from None
