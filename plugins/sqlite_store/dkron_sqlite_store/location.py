"""Where the database file is."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from dkron.core.errors import InvalidInputError
from dkron.plugins import StoreOptions

EXAMPLE = "write it as sqlite:///absolute/path.db, or leave the path out to use the data directory"


def database_path(options: StoreOptions) -> Path:
    """Return the file that the URL names, or else `store/dkron.db` in the data directory."""
    if len(options.urls) > 1:
        raise InvalidInputError("store URL", f"an embedded store is one file, not {len(options.urls)}")
    if path := _path_of(options.urls[0]) if options.urls else "":
        return Path(path)
    if not options.data_dir:
        raise InvalidInputError("data-dir", "the embedded store needs a data directory to keep its file in")
    return Path(options.data_dir) / "store" / "dkron.db"


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or parts.query or parts.fragment or "\0" in path or not path.startswith("/" if path else ""):
        raise InvalidInputError("store URL", f"{url!r} does not name a file; {EXAMPLE}")
    return "/" + name if (name := path.strip("/")) else ""
