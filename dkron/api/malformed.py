"""What aiohttp says about bytes that are no request, in words for people."""

from __future__ import annotations

import re
from typing import Final

from aiohttp.http_exceptions import ContentEncodingError, LineTooLong

_ENCODING: Final = "body: cannot be decoded as its Content-Encoding says; send it in gzip or deflate, or leave that header out"
_SHOWN: Final = re.compile(r"""[\s:]*\sb['"].*""", re.DOTALL)  # the bytes that a parser shows, and all that follows


def malformed(error: BaseException) -> str:
    """Return a sentence for what could not be read."""
    if isinstance(error, ContentEncodingError):
        return _ENCODING
    if isinstance(error, LineTooLong):
        return f"a line of the request has more than {error.args[1]} bytes; shorten its headers"
    message = str(getattr(error, "message", error)) or "it breaks off"
    return f"this cannot be read as HTTP/1.1: {' '.join(_SHOWN.sub('', message).split())}"
