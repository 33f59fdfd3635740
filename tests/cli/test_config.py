from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from dkron import __version__, addresses
from dkron.config import Key, Settings, keys, worker_settings
from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError

pytestmark = pytest.mark.usefixtures("clean")
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def write(folder: Path, text: str, name: str = "dkron.yml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def refusal(flags: dict[str, Any] | None = None) -> str:
    with pytest.raises(InvalidInputError) as caught:
        Settings.load(flags)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_with_nothing_given_it_listens_on_loopback_only() -> None:
    settings = Settings.load()
    assert settings.link.loopback
    assert settings.http.loopback
    assert (settings.link.port, settings.http.port) == (8946, 8080)
    assert settings.node_name == socket.gethostname()
    assert settings.warnings() == []


def test_flag_wins_over_environment_over_file_over_default(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean / "config", "datacenter: file\nregion: file\nnode-name: file\n")
    monkeypatch.setenv("DKRON_REGION", "variable")
    monkeypatch.setenv("DKRON_NODE_NAME", "variable")
    settings = Settings.load({"node_name": "flag"})
    assert (settings.node_name, settings.region, settings.datacenter, settings.log_level) == ("flag", "variable", "file", "info")


def test_the_first_usual_file_is_read(clean: Path) -> None:
    write(clean / "config", "region: third")
    assert Settings.load().region == "third"
    write(clean / "home" / ".dkron", json.dumps({"region": "second"}), "dkron.json")
    assert Settings.load().region == "second"


def test_a_given_file_is_the_only_one(clean: Path) -> None:
    write(clean / "config", "region: usual")
    path = write(clean / "elsewhere", "datacenter: given", "my.yaml")
    settings = Settings.load({"config": str(path)})
    assert (settings.region, settings.datacenter) == ("global", "given")


def test_a_given_file_must_be_there() -> None:
    assert refusal({"config": "no/such.yml"}) == "--config: there is no file no/such.yml"
    assert refusal({"config": "/"}) == "--config: / is a folder; give the file in it"


def test_keys_are_written_with_hyphens_or_underscores(clean: Path) -> None:
    write(clean / "config", "bind_addr: 127.0.0.1:9000\nhttp-addr: 127.0.0.1:9001\n")
    settings = Settings.load()
    assert (settings.bind_addr, settings.http_addr) == ("127.0.0.1:9000", "127.0.0.1:9001")


@pytest.mark.parametrize("name", ["dkron.yml", "dkron.json"])
def test_empty_values_say_nothing(clean: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text = "region:\njoin:\nretry-max: ''\n" if name.endswith("yml") else '{"region": null, "join": null, "retry-max": ""}'
    write(clean / "config", text, name)
    monkeypatch.setenv("DKRON_DATACENTER", "")
    settings = Settings.load()
    assert (settings.region, settings.join, settings.retry_max, settings.datacenter) == ("global", (), 0, "dc1")


def test_an_empty_file_is_no_error(clean: Path) -> None:
    write(clean / "config", "# nothing yet\n")
    assert Settings.load().region == "global"


def test_lists_are_sequences_or_separated_by_commas(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean / "config", "retry-join: [localhost, 127.0.0.2:9000]\nonly-plugins: shell, http\n")
    monkeypatch.setenv("DKRON_BLOCK_PLUGINS", "a,b")
    settings = Settings.load({"join": "localhost:1,localhost:2"})
    assert settings.retry_join == ("localhost:8946", "127.0.0.2:9000")
    assert settings.only_plugins == ("shell", "http")
    assert settings.block_plugins == ("a", "b")
    assert settings.peers == settings.retry_join
    assert settings.join == ("localhost:1", "localhost:2")


def test_tags_of_the_file_keep_their_case_and_spelling(clean: Path) -> None:
    write(clean / "config", "tags: {MyRole: Web, blue: yes, serial: 0123}\n")
    assert Settings.load().tags == {"MyRole": "Web", "blue": "yes", "serial": "0123"}


def test_the_tag_variable_is_split_at_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DKRON_TAG", "a=1 b=x,y")
    assert Settings.load().tag == ("a=1", "b=x,y")


def test_given_tags_replace_those_of_the_file_and_nobody_fakes_the_fixed_ones(clean: Path) -> None:
    write(clean / "config", "tags: {a: '1', role: boss}\n")
    fixed = {"role": "dkron", "dc": "dc1", "region": "global", "version": __version__}
    assert Settings.load().node_tags == {"a": "1", **fixed, "role": "boss"}
    assert Settings.load({"tag": "b=2,dc=mine", "server": "true"}).node_tags == {"b": "2", **fixed, "server": "true"}


def test_options_of_plugins_keep_their_types(clean: Path) -> None:
    write(clean / "config", "plugins:\n  http: {limit: 5, verify: true}\n")
    assert Settings.load().plugins == {"http": {"limit": 5, "verify": True}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("retry-jon: [a]", "dkron.yml: retry-jon: there is no such key; did you mean retry-join?"),
        ("frobnicate: 1", "dkron.yml: frobnicate: there is no such key"),
        ("retry-max: many", "dkron.yml: retry-max: must be a valid integer, not 'many'"),
        ("retry-max: -1", "dkron.yml: retry-max: must be greater than or equal to 0, not '-1'"),
        ("retry_max: 1\nretry-max: 2", "dkron.yml: retry-max: is given twice"),
        ("region: a\nserver: true\nregion: b", "dkron.yml: line 3: region is given twice"),
        ("tags:\n  a: b\n  'a': c", "dkron.yml: line 3: a is given twice"),
        ("region: x\nplugins: &a {k: *a}", "dkron.yml: line 2: refers to itself"),
        ("server: perhaps", "dkron.yml: server: must be a valid boolean, not 'perhaps'"),
        ("tags: [a]", "dkron.yml: tags: must be a valid dictionary"),
        ("tags: {a: {b: c}}", "dkron.yml: tags.a: must be a valid string"),
        ("join: {a: b}", "dkron.yml: join: must be a valid tuple"),
        ("region: [a]", "dkron.yml: region: must be a valid string"),
        ("- a", "dkron.yml: must hold keys and values, such as `server: true`"),
        ("region: 'a", "dkron.yml: line 1: is not YAML: found unexpected end of stream"),
        ("a: b: c", "dkron.yml: line 1: is not YAML: mapping values are not allowed here"),
        ("region: a\0b", "dkron.yml: is not YAML: "),
        ("region: " + "[\n" * 20_000, "dkron.yml: is nested too deeply"),
        ("region: " + "a" * 2_000_000, "dkron.yml: is larger than 1 MiB, which no configuration is"),
        ("x" * 1000 + ": 1", "dkron.yml: " + "x" * 77 + "...: there is no such key"),
    ],
)
def test_a_bad_file_is_named_with_the_key_and_the_remedy(clean: Path, text: str, complaint: str) -> None:
    write(clean / "config", text)
    assert refusal().startswith("config/" + complaint)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "config/dkron.json: line 1: is not JSON: Expecting property name enclosed in double quotes"),
        ('{"region": "a\\u0000b"}', "config/dkron.json: region: must not contain a NUL character"),
        ('{"region": "a", "region": "b"}', "config/dkron.json: region is given twice"),
        ('{"tags": {"a": "b", "a": "c"}}', "config/dkron.json: a is given twice"),
        ("[1]", "config/dkron.json: must hold keys and values"),
        ("[" * 100_000, "config/dkron.json: is nested too deeply"),
    ],
)
def test_a_bad_json_file_is_named(clean: Path, text: str, complaint: str) -> None:
    write(clean / "config", text, "dkron.json")
    assert refusal().startswith(complaint)


def test_a_file_that_is_not_text_is_named(clean: Path) -> None:
    write(clean / "config", "").write_bytes(b"\xff\xfe")
    assert refusal() == "config/dkron.yml: is not UTF-8 text"


def test_unknown_variables_are_named_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DKRON_RETRY_JION", "a")
    assert refusal() == "DKRON_RETRY_JION: there is no such environment variable; did you mean DKRON_RETRY_JOIN?"


def test_bad_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DKRON_RETRY_INTERVAL", "30")
    assert refusal() == "DKRON_RETRY_INTERVAL: '30' is not a duration; write numbers with units, such as 1h30m, 1.5h or 300ms"


@pytest.mark.parametrize(
    "name",
    [
        "DKRON_PORT",
        "DKRON_SERVICE_HOST",
        "DKRON_UI_SERVICE_PORT_HTTP",
        "DKRON_PORT_8080_TCP_ADDR",
        "DKRON_JOB_NAME",
        "DKRON_WORKER",
        "DKRON_TEST_ETCD",
    ],
)
def test_variables_that_others_set_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    assert Settings.load().region == "global"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"retry_interval": "soon"}, "--retry-interval: 'soon' is not a duration"),
        ({"retention_size": "12 parsecs"}, "--retention-size: must be a size"),
        (
            {"log_level": "loud"},
            "--log-level: must be 'debug', 'info', 'warn', 'warning', 'error', 'fatal' or 'panic', not 'loud'",
        ),
        ({"tag": "novalue"}, "--tag: must be key=value, not 'novalue'"),
        ({"node_name": "a/b"}, "--node-name: must be up to 128 letters"),
        ({"node_name": "x" * 5_000_000}, "--node-name: must be up to 128 letters"),
        ({"encrypt": "c2hvcnQ="}, "--encrypt: must be 16, 24 or 32 bytes in base64, as `dkron keygen` prints them"),
        ({"bind_addr": "host:port"}, "--bind-addr: must be host:port with a port up to 65535"),
        ({"http_addr": "{{ GetMoon }}:1"}, "--http-addr: {{ GetMoon }} is not known here"),
        ({"http_names": "dkron.example:8080"}, "--http-names: must be names of hosts, without scheme and port, such as"),
        ({"join": "provider=aws tag_key=x"}, "--join: cloud discovery (provider=...) is not available"),
        ({"join": ":8946"}, "--join: must be host:port of servers"),
        ({"max_running": "0"}, "--max-running: must be greater than or equal to 1"),
        ({"data_dir": ""}, "--data-dir: "),
        ({"bogus": "1"}, "--bogus: there is no such flag"),
    ],
)
def test_bad_flags_are_named_with_the_remedy(flags: dict[str, Any], complaint: str) -> None:
    assert refusal(flags).startswith(complaint)


def test_secrets_are_neither_printed_nor_quoted(clean: Path) -> None:
    assert KEY not in repr(Settings.load({"encrypt": KEY, "mail_password": KEY}))
    write(clean / "config", "encrypt: hunter2hunter2\n")
    assert "hunter2" not in refusal()


def test_links_beyond_this_machine_need_a_key_or_a_word() -> None:
    open_links = {"server": "true", "bind_addr": ":8946"}
    assert "--encrypt KEY" in refusal(open_links)
    assert Settings.load({**open_links, "encrypt": KEY}).key == b"01234567890123456789012345678901"
    assert Settings.load({**open_links, "insecure": "true"}).link.wildcard
    assert refusal({"join": "example.org"}).startswith("--join: example.org:8946 is beyond this machine: give all nodes")
    assert Settings.load({"join": "example.org", "encrypt": KEY}).peers == ("example.org:8946",)


def test_an_agent_does_not_listen_so_its_bind_addr_is_no_danger() -> None:
    assert Settings.load({"bind_addr": "0.0.0.0:8946"}).bind_addr == "0.0.0.0:8946"


def test_what_has_no_effect_and_what_is_open_is_told(clean: Path) -> None:
    write(clean / "config", "raft-multiplier: 5\nserver: true\nhttp-addr: :8080\nprofile: wan\n")
    told = Settings.load().warnings()
    assert "raft-multiplier has no effect here: the state is kept in a store, not in a Raft log" in told
    assert any(line.startswith("profile has no effect") for line in told)
    assert any(line.startswith("the API at :8080 is open") for line in told)
    assert len(told) == 3


def test_a_file_written_for_dkron_starts(clean: Path) -> None:
    write(
        clean / "config",
        """
        server: false
        bootstrap-expect: 3
        data-dir: /var/lib/dkron
        bind-addr: "{{ GetInterfaceIP \\"lo\\" }}:8946"
        log-level: INFO
        tags: {dc: east, datacenter: east}
        encrypt: kPpdjphiipNSsjd4QHWbkA==
        rpc-port: 6868
        advertise-rpc-port: 6868
        serf-reconnect-timeout: 5m
        retry-join: ["10.19.3.9", "10.19.4.64:8946"]
        retry-interval: 10s
        enable-prometheus: true
        mail-host: email-smtp.example.org
        mail-port: 25
        webhook-headers: ["Content-Type:application/json"]
        dog-statsd-tags: [a, b]
        """,
    )
    settings = Settings.load()
    assert settings.bind_addr == "127.0.0.1:8946"
    assert settings.retry_join == ("10.19.3.9:8946", "10.19.4.64:8946")


def test_the_worker_gets_its_part(clean: Path) -> None:
    settings = Settings.load({"tag": "a=1", "retry_join": "localhost", "encrypt": KEY, "drain": "1m30s", "max_running": "7"})
    worker = worker_settings(settings)
    assert worker.join == ("localhost:8946",)
    assert (worker.places, worker.drain, worker.supervised) == (7, 90 * SECOND, False)
    assert worker.key == settings.key
    assert worker.tags["a"] == "1"
    assert worker.data_dir == str(clean / "dkron.data")


def test_the_worker_beside_a_server_joins_that_first() -> None:
    flags = {"server": "true", "bind_addr": ":9946", "insecure": "true", "join": "10.0.0.1"}
    assert worker_settings(Settings.load(flags)).join == ("127.0.0.1:9946", "10.0.0.1:8946")
    assert worker_settings(Settings.load()).join == ("127.0.0.1:8946",)


def test_other_machines_are_told_an_address_that_is_not_every() -> None:
    everywhere = Settings.load({"server": "true", "bind_addr": ":9946", "insecure": "true"}).advertised
    assert everywhere.port == 9946
    assert not everywhere.wildcard
    given = Settings.load({"server": "true", "bind_addr": ":9946", "insecure": "true", "advertise_addr": "cron.example.org"})
    assert str(given.advertised) == "cron.example.org:8946"
    assert str(Settings.load().advertised) == "127.0.0.1:8946"


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({}, {"127.0.0.1"}),
        ({"advertise_addr": "Cron.example"}, {"127.0.0.1", "cron.example"}),
        ({"http_names": "Dkron.example, b", "http_addr": "localhost"}, {"localhost", "dkron.example", "b"}),
        ({"http_names": "dkron.example", "http_addr": ":8080"}, {"dkron.example"}),
        ({"http_addr": ":8080"}, None),
        ({"http_addr": "cron.example"}, None),
    ],
)
def test_the_names_of_an_api_are_known_on_loopback_or_when_given(flags: dict[str, Any], names: set[str] | None) -> None:
    assert Settings.load(flags).called == names


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("host", ("host", 8946)),
        ("host:1", ("host", 1)),
        (":1", ("", 1)),
        ("[::1]:1", ("::1", 1)),
        ("::1", ("::1", 8946)),
        ("[::1]", ("::1", 8946)),
        (" 10.0.0.1:1 ", ("10.0.0.1", 1)),
        ('{{ GetInterfaceIP "lo" }}:1', ("127.0.0.1", 1)),
    ],
)
def test_addresses(text: str, parsed: tuple[str, int]) -> None:
    assert addresses.parse(text, 8946) == parsed
    assert addresses.parse(str(addresses.parse(text, 8946)), 1) == parsed


@pytest.mark.parametrize(
    "text", ["", "a:b", "a:65536", "a:-1", "a:1:2", "[x]:1", "a b", "http://a", "a:", '{{ GetInterfaceIP "nope" }}']
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be host:port|no interface"):
        addresses.parse(text, 8946)


def test_the_docs_have_every_key_as_it_is() -> None:
    rows = {row.split("|")[1].strip(): row for row in DOCUMENT.read_text().splitlines() if row.startswith("| `")}
    for key in keys():
        row = rows.pop(f"`{key.name}`", "")
        assert row, f"{key.name} is not in {DOCUMENT.name}"
        for fact in filter(None, (key.flag, key.variable, key.looks, key.default, key.description, key.inert)):
            assert fact in re.sub(r"\\\|", "|", row), f"{key.name}: {fact!r} is not in its row"
    assert not rows, "rows without a key"


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64KB", 65536), ("1.5 gb", 3 << 29), ("10M", 10 << 20), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert Settings.load({"retention_size": text}).kept.size == size


NESTED: Any = "x"
for _ in range(200):
    NESTED = [NESTED]
ODD = [[], {}, 1.5, True, -1, 10**30, "x" * 300_000, "\0", "../../etc", "-", "\u202e\n", NESTED, [None], [{}], {"": {"a": [1]}}]


def complaint(flags: dict[str, Any] | None = None) -> str:
    """Return what is wrong in one line, or "" if it is accepted."""
    try:
        Settings.load(flags)
    except InvalidInputError as error:
        return refusal(flags) if str(error) else "an empty sentence"
    return ""


@pytest.mark.parametrize("key", [key for key in keys() if key.only != "flag"], ids=lambda key: key.name)
def test_no_odd_value_of_a_file_breaks_it(clean: Path, key: Key) -> None:
    for value in ODD:
        write(clean / "config", json.dumps({key.name: value}), "dkron.json")
        found = complaint()
        assert not found or found.startswith(f"config/dkron.json: {key.name}"), value


@pytest.mark.parametrize("key", [key for key in keys() if key.flag and key.name != "config"], ids=lambda key: key.name)
def test_no_odd_flag_or_variable_breaks_it(monkeypatch: pytest.MonkeyPatch, key: Key) -> None:
    for value in [value for value in ODD if isinstance(value, str)] + ["", "0", "[]", "{{ x", "%s", "ü"]:
        found = complaint({key.field: value})
        assert not found or found.startswith(key.flag), value
        if "\0" not in value and len(value) < 100_000:  # the system takes no others
            monkeypatch.setenv(key.variable, value)
            found = complaint()
            assert not found or found.startswith(key.variable), value
            monkeypatch.delenv(key.variable)
