from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dkron_etcd_store.access import Access, Endpoint, parse
from dkron_etcd_store.coordinator import EtcdCoordinator
from dkron_etcd_store.keyspace import Keyspace, end_of
from dkron_etcd_store.results import EtcdResultStore

from dkron.core.errors import InvalidInputError
from dkron.plugins import PluginSettings, StoreOptions
from dkron.plugins.manager import PluginManager


class TestHooks:
    def test_both_stores_come_from_the_scheme(self) -> None:
        plugins = PluginManager.load(PluginSettings(), only=["etcd"])
        options = StoreOptions(urls=("127.0.0.1:1",))
        assert isinstance(plugins.coordinators()["etcd"](options), EtcdCoordinator)
        assert isinstance(plugins.result_stores()["etcd"](options), EtcdResultStore)
        assert plugins.problems == []

    @pytest.mark.parametrize("bad", [{"quota": "2GB"}, {"quota": -1}, {"qouta": 1}])
    def test_bad_options_are_named(self, bad: dict[str, object]) -> None:
        plugins = PluginManager.load(PluginSettings(options={"etcd": bad}), only=["etcd"])
        with pytest.raises(InvalidInputError, match=rf"plugins\.etcd\.{next(iter(bad))}: "):
            plugins.result_stores()["etcd"](StoreOptions())

    def test_a_worker_does_not_import_grpc(self) -> None:
        program = "import sys, dkron_etcd_store; sys.exit('grpc' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)


class TestEndpoints:
    @pytest.mark.parametrize(
        ("url", "endpoint"),
        [
            ("10.0.0.5", Endpoint("10.0.0.5", 2379)),
            ("10.0.0.5:4001", Endpoint("10.0.0.5", 4001)),
            ("http://etcd-1.example:2379/", Endpoint("etcd-1.example", 2379)),
            ("https://etcd-1.example", Endpoint("etcd-1.example", 2379, tls=True)),
            ("etcd://etcd-1.example", Endpoint("etcd-1.example", 2379)),
            ("[::1]:2379", Endpoint("::1", 2379)),
            ("http://[::1]", Endpoint("::1", 2379)),
        ],
    )
    def test_with_and_without_scheme_and_port(self, url: str, endpoint: Endpoint) -> None:
        assert parse([url], tls=False) == (endpoint,)

    def test_several(self) -> None:
        found = parse(["etcd://a,b:1", " http://c ", "a:2379"], tls=False)
        assert list(map(str, found)) == ["a:2379", "b:1", "c:2379"]
        assert str(Access(found)) == "etcd at a:2379, b:1, c:2379"
        assert str(parse(["[::1]"], tls=False)[0]) == "[::1]:2379"

    def test_by_default_the_local_one(self) -> None:
        assert parse([], tls=False) == (Endpoint("127.0.0.1", 2379),)

    def test_certificates_turn_tls_on(self) -> None:
        options = StoreOptions(urls=("a", "https://b"), cafile="ca.pem")
        assert all(endpoint.tls for endpoint in Access.of(options).endpoints)
        with pytest.raises(InvalidInputError, match="says http, but certificate files are given"):
            Access.of(StoreOptions(urls=("http://a",), cafile="ca.pem"))

    @pytest.mark.parametrize("url", ["ftp://a", "a/path", "http://a?x=1", "http://", "a:port", "http://user@a", "a:99999"])
    def test_what_is_no_endpoint(self, url: str) -> None:
        with pytest.raises(InvalidInputError, match=r"etcd-machines: .*; write host, host:port"):
            parse([url], tls=False)

    def test_a_certificate_needs_its_key(self) -> None:
        with pytest.raises(InvalidInputError, match=r"etcd-certfile: .* give both"):
            Access.of(StoreOptions(certfile="c.pem"))
        with pytest.raises(InvalidInputError, match=r"etcd-keyfile: .* give both"):
            Access.of(StoreOptions(keyfile="k.pem"))

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        access = Access.of(StoreOptions(cafile=str(tmp_path / "none.pem")))
        with pytest.raises(InvalidInputError, match=r"etcd-cafile: .*none\.pem cannot be read: No such file"):
            access.credentials()


class TestKeyspaces:
    @pytest.mark.parametrize("name", ["/dkron", "dkron", "/dkron/", "dkron/"])
    def test_it_ends_with_a_slash(self, name: str) -> None:
        space = Keyspace(name)
        assert space.inside("c/a") == b"/dkron/c/a"
        assert space.outside(b"/dkron/c/a") == "c/a"

    def test_the_root(self) -> None:
        assert Keyspace("/").inside("c/a") == b"/c/a"

    def test_a_range_ends_after_its_prefix(self) -> None:
        assert end_of(b"/dkron/") == b"/dkron0"
