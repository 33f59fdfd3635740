from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import msgspec
import pytest
from dkron_http_executor import HttpConfig, HttpExecutor
from dkron_http_executor.config import parse_codes, parse_headers

from dkron.core.errors import InvalidInputError
from dkron.plugins import PluginSettings
from dkron.plugins.executor_config import check_config

DOCUMENT = Path(__file__).parents[3] / "docs" / "executors.md"
MINIMAL = {"method": "GET", "url": "http://localhost/"}


def refusal(config: dict[str, str]) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        check_config(HttpExecutor(), MINIMAL | config)
    assert len(str(caught.value)) < 300
    return caught.value


@pytest.mark.parametrize(
    ("config", "key", "problem"),
    [
        ({"method": ""}, "method", "must be an HTTP method such as GET, not ''"),
        ({"method": "GET /"}, "method", "must be an HTTP method"),
        ({"url": ""}, "url", "must start with http:// or https:// and a host, not ''"),
        ({"url": "localhost:80/"}, "url", "must start with http://"),
        ({"url": "ftp://a/"}, "url", "must start with http://"),
        ({"url": "http:///path"}, "url", ""),
        ({"url": "http://a:99999/"}, "url", ""),
        ({"url": "http://a/\r\nHost: b"}, "url", "must start with http://"),
        ({"url": "http://[::1/"}, "url", ""),
        ({"url": "h" * 5_000_000}, "url", "must start with http://"),
        ({"headers": "Accept: a"}, "headers", 'must be a JSON array of texts, such as ["Accept: text/plain"]'),
        ({"headers": '{"Accept": "a"}'}, "headers", "must be a JSON array"),
        ({"headers": "[1]"}, "headers", "must be a JSON array"),
        ({"headers": "[" * 100_000}, "headers", "must be a JSON array"),
        ({"headers": '["no colon"]'}, "headers", "each must be \"Name: value\", not 'no colon'"),
        ({"headers": '[": value"]'}, "headers", 'each must be "Name: value"'),
        ({"headers": '["Bad Name: value"]'}, "headers", 'each must be "Name: value"'),
        ({"headers": '["A: b\\r\\nC: d"]'}, "headers", "the value of A must be one line"),
        ({"headers": '["A: b\\u0000"]'}, "headers", "the value of A must be one line"),
        ({"timeout": "soon"}, "timeout", "must be a whole number, at least 0"),
        ({"timeout": "-1"}, "timeout", "must be a whole number, at least 0"),
        ({"timeout": "99999999999"}, "timeout", "must be a whole number, at least 0, at most"),
        ({"expectCode": "ok"}, "expectCode", "must be status codes such as 200,206 or 2xx or 200-299, not 'ok'"),
        ({"expectCode": "20"}, "expectCode", "must be status codes"),
        ({"expectCode": "299-200"}, "expectCode", "299-200 ends before it starts"),
        ({"expectBody": "("}, "expectBody", "is no regular expression: missing ): ("),
        ({"expectBody": r"(a)\1"}, "expectBody", "is no regular expression: invalid escape sequence"),
        ({"tlsNoVerifyPeer": "perhaps"}, "tlsNoVerifyPeer", "must be true or false, not 'perhaps'"),
        ({"tlsCertificateKeyFile": "/k"}, "tlsCertificateKeyFile", "is of no use without tlsCertificateFile"),
    ],
)
def test_bad_values_are_refused_when_the_job_is_stored(config: dict[str, str], key: str, problem: str) -> None:
    error = refusal(config)
    assert error.field == f"executor_config.{key}"
    assert error.problem.startswith(problem)


@pytest.mark.parametrize("missing", ["method", "url"])
def test_method_and_url_are_required(missing: str) -> None:
    with pytest.raises(InvalidInputError, match=f"executor_config.{missing}: is required"):
        check_config(HttpExecutor(), {key: value for key, value in MINIMAL.items() if key != missing})


def test_keys_of_other_clients_are_let_pass() -> None:
    check_config(HttpExecutor(), MINIMAL | {"project": "x", "debug": "true", "timeout": "5", "tlsNoVerifyPeer": "true"})


def test_only_the_first_colon_parts_a_header() -> None:
    headers = parse_headers('["X-Time: 12:30:45", "Authorization:Bearer a:b", "Empty:", "X-Time: 2"]')
    assert list(headers.items()) == [
        ("X-Time", "12:30:45"),
        ("Authorization", "Bearer a:b"),
        ("Empty", ""),
        ("X-Time", "2"),
    ]


def test_headers_that_follow_from_the_body_are_left_to_it() -> None:
    assert list(parse_headers('["Content-Length: 7", "transfer-encoding: chunked", "A: b"]')) == ["A"]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("", [200, 204, 302, 399], [100, 199, 400, 404, 500]),
        ("200,206", [200, 206], [20, 201, 2000]),
        (" 200 , 404,", [200, 404], [206]),
        ("2xx", [200, 299], [199, 300]),
        ("4XX,500-503", [400, 499, 500, 503], [399, 504]),
    ],
)
def test_expected_codes_are_numbers_not_text(text: str, inside: list[int], outside: list[int]) -> None:
    codes = parse_codes(text)
    assert all(any(code in part for part in codes) for code in inside)
    assert not any(any(code in part for part in codes) for code in outside)


def test_every_key_is_documented() -> None:
    section = DOCUMENT.read_text().partition("\n## http\n")[2].partition("\n## ")[0].partition("It is a **success**")[0]
    rows = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
    assert list(rows) == [field.encode_name for field in msgspec.structs.fields(HttpConfig)]


def test_it_comes_in_by_the_entry_point() -> None:
    (entry,) = entry_points(group="dkron", name="http")
    (executor,) = entry.load().dkron_register_executors(PluginSettings())
    assert entry.dist is not None
    assert entry.dist.name == "dkron-http-executor"
    assert executor.name == "http"
