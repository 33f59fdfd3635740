"""Where settings come from besides flags: the environment and a file. Each names itself in its errors."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from dkron import markup
from dkron.core.errors import InvalidInputError

PREFIX: Final = "DKRON_"
LARGEST_FILE: Final = 1 << 20  # bytes; a bigger one is no configuration, and would take minutes to parse

# Not settings: the client's own variable, and those that a job is given (it may itself start dkron).
_OTHER_VARIABLES: Final = frozenset(
    {"DKRON_SERVER_URL", "DKRON_JOB_NAME", "DKRON_EXECUTION_ID", "DKRON_SCHEDULED_AT", "DKRON_ATTEMPT", "DKRON_WORKER"}
)
_TESTS: Final = "DKRON_TEST_"  # tells the test suites what to use
# Kubernetes sets these in every pod for a service whose name starts with "dkron".
_SERVICE_LINK: Final = re.compile(r"DKRON_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


def variable(key: str) -> str:
    """Return the environment variable of a key: `DKRON_BIND_ADDR` of `bind-addr`."""
    return PREFIX + key.upper().replace("-", "_")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the tail of a sentence about an unknown word: the known one that was probably meant, if there is one."""
    close = difflib.get_close_matches(word[:64], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def environment(keys: Collection[str]) -> dict[str, str]:
    """Return what the environment says about these keys, by key; empty variables say nothing.

    Raises:
        InvalidInputError: a `DKRON_*` variable that is no setting.
    """
    by_variable = {variable(key): key for key in keys}
    found = {name: text for name, text in os.environ.items() if name.startswith(PREFIX) and text}
    for name in found.keys() - by_variable.keys() - _OTHER_VARIABLES:
        if not name.startswith(_TESTS) and not _SERVICE_LINK.fullmatch(name):
            raise InvalidInputError(name, f"there is no such environment variable{nearest(name, by_variable)}")
    return {by_variable[name]: text for name, text in found.items() if name in by_variable}


def find_file(given: str) -> Path | None:
    """Return the configuration file: the given one, else the first that exists at the usual places.

    Raises:
        InvalidInputError: a file was given, and it is not there.
    """
    if given:
        path = Path(given)
        if path.is_dir():
            raise InvalidInputError("--config", f"{given} is a folder; give the file in it")
        if not path.is_file():
            raise InvalidInputError("--config", f"there is no file {given}")
        return path
    folders = (Path("/etc/dkron"), Path.home() / ".dkron", Path("config"))
    usual = (folder / f"dkron.{ending}" for folder in folders for ending in ("yml", "yaml", "json"))
    return next((path for path in usual if path.is_file()), None)


def file(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """Return what a YAML or JSON file says about these keys, by key; empty values say nothing.

    Keys may be written with `-` or `_`. YAML scalars are text as written, so that `node-name: 0123` keeps its zero and
    `tags: {blue: yes}` its word; only `plugins` has typed values.

    Raises:
        InvalidInputError: naming the file, and the line or key.
    """
    content = _parse(path, _read(path))
    if not isinstance(content, Mapping):
        raise InvalidInputError(str(path), "must hold keys and values, such as `server: true`")
    found: dict[str, Any] = {}
    for written, value in content.items():
        key = str(written).replace("_", "-")
        if key not in keys:
            raise InvalidInputError(f"{path}: {_shorten(str(written))}", f"there is no such key{nearest(key, keys)}")
        if key in found:
            raise InvalidInputError(f"{path}: {key}", "is given twice")
        found[key] = value
    return {key: value for key, value in found.items() if value not in ("", None)}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise InvalidInputError(str(path), "is larger than 1 MiB, which no configuration is")
        return content.decode()
    except OSError as error:
        raise InvalidInputError(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInputError(str(path), "is not UTF-8 text") from None


def _parse(path: Path, text: str) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return json.loads(text, object_pairs_hook=markup.unique) if path.suffix == ".json" else _yaml(text)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{path}: line {error.lineno}", f"is not JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidInputError(f"{path}: line {line}", f"is not YAML: {error.problem}") from None
    except markup.MistakeError as error:
        raise InvalidInputError(str(path), str(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInputError(str(path), f"is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InvalidInputError(str(path), "is nested too deeply") from None


def _yaml(text: str) -> Any:  # noqa: ANN401 - as above
    markup.check(yaml.compose(text, yaml.BaseLoader))
    words = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - this loader makes nothing but text
    if isinstance(words, dict) and words.get("plugins"):
        words["plugins"] = yaml.safe_load(text)["plugins"]
    return {} if words in ("", None) else words


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - what fits on a line
