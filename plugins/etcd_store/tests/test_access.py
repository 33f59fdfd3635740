"""TLS, users, and keyspaces that do not see each other."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import urllib.request
from typing import Any, NamedTuple

import pytest
from dkron_etcd_store.access import Access, parse
from dkron_etcd_store.results import EtcdResultStore

from dkron.core.clock import SECOND
from dkron.core.errors import StoreUnavailableError
from dkron.core.interfaces import Retention
from dkron.core.models import Record

RECORD = Record(id="1-node-uid", job="backup", uid="uid", group=1)


class Files(NamedTuple):
    """Certificates, as files."""

    ca: str
    cert: str
    key: str
    other_ca: str


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An authority, a certificate for this machine that it signed, and an authority that signed nothing."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=folder)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=etcd", "-keyout", "etcd.key", "-out", "etcd.csr")
    openssl("x509", "-req", "-in", "etcd.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", 2,
            "-extfile", "names", "-out", "etcd.pem")  # fmt: skip
    return Files(*(str(folder / name) for name in ("ca.pem", "etcd.pem", "etcd.key", "other.pem")))


class TestTls:
    @pytest.fixture
    def cluster(self, start: Any, files: Files) -> Any:
        flags = ["--cert-file", files.cert, "--key-file", files.key, "--trusted-ca-file", files.ca, "--client-cert-auth"]
        return start(1, flags, "https")

    async def test_with_the_right_files(self, cluster: Any, files: Files, connect: Any) -> None:
        store = await connect(cluster.access(cafile=files.ca, certfile=files.cert, keyfile=files.key))
        revision = await store.commit({}, {"c/a": b"1"})
        watch = store.watch("c/", revision)
        await store.commit({"c/a": revision}, {"c/a": b"2"})
        assert [change.value for change in await anext(watch)] == [b"2"]
        await watch.aclose()

    @pytest.mark.parametrize("wrong", ["no certificate", "other authority", "no tls"])
    async def test_with_wrong_ones(self, cluster: Any, files: Files, connect: Any, wrong: str) -> None:
        access = cluster.access(cafile=files.ca, certfile=files.cert, keyfile=files.key)
        if wrong == "no certificate":
            access = access._replace(certfile="", keyfile="")
        elif wrong == "other authority":
            access = access._replace(cafile=files.other_ca)
        else:
            access = Access(parse(cluster.addresses, tls=False))
        with pytest.raises(StoreUnavailableError, match="etcd at 127"):
            await connect(access)


def ask(cluster: Any, path: str, **body: object) -> None:
    """Ask etcd's JSON gateway, which knows how to make users."""
    request = urllib.request.Request(f"http://{cluster.addresses[0]}/v3/auth/{path}", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def make_users(cluster: Any, keyspace: str) -> None:
    """Have a user `dkron` who may do all under the keyspace, a user `guest` who may do nothing, and turn on the guard."""
    for user in ("root", "dkron", "guest"):
        ask(cluster, "user/add", name=user, password=f"{user}-secret")
    ask(cluster, "user/grant", user="root", role="root")
    ask(cluster, "role/add", name="dkron")
    key, end = (base64.b64encode(text.encode()).decode() for text in (f"{keyspace}/", f"{keyspace}0"))
    ask(cluster, "role/grant", name="dkron", perm={"permType": "READWRITE", "key": key, "range_end": end})
    ask(cluster, "user/grant", user="dkron", role="dkron")
    ask(cluster, "enable")


def forgotten(cluster: Any, token: str) -> bool:
    """Tell whether etcd's log says that this token has expired."""
    lines = cluster.members[0].log.splitlines()
    return any("deleted a simple token" in line and token in line for line in lines)


class TestUsers:
    @pytest.fixture
    def cluster(self, start: Any, keyspace: str) -> Any:
        cluster = start(1)
        ask(cluster, "role/add", name="root")
        make_users(cluster, keyspace)
        return cluster

    async def test_the_right_password(self, cluster: Any, keyspace: str, connect: Any) -> None:
        access = cluster.access(username="dkron", password="dkron-secret")
        store = await connect(access)
        lease = await store.lease(60 * SECOND)
        await store.commit({"c/a": 0}, {"c/a": b"1"}, lease=lease.id)
        await lease.keep()
        await lease.revoke()
        results = EtcdResultStore(access, keyspace)
        await results.open()
        await results.save([(RECORD, b"output")])
        assert await results.list("backup") == [RECORD]
        assert await results.sweep("backup", Retention(records=1)) == 0
        await results.close()

    @pytest.mark.parametrize(
        ("user", "password", "message"),
        [
            ("dkron", "wrong", "refuses the user dkron: check etcd-username and etcd-password"),
            ("nobody", "wrong", "refuses the user nobody"),
            ("guest", "guest-secret", "grant its role read and write under the keyspace"),
            ("", "", "wants a user: give etcd-username and etcd-password"),
        ],
    )
    async def test_who_is_not_let_in(self, cluster: Any, connect: Any, user: str, password: str, message: str) -> None:
        with pytest.raises(StoreUnavailableError, match=message):
            await connect(cluster.access(username=user, password=password))

    async def test_a_token_that_etcd_does_not_know(self, cluster: Any, connect: Any) -> None:
        store = await connect(cluster.access(username="dkron", password="dkron-secret"))
        revision = (await store.range("")).revision
        for use in (store.range(""), store.commit({}, {"c/a": b""}), store.lease(SECOND), anext(store.watch("c/", revision))):
            store.client.token = "unknown.1"
            await use
            assert store.client.token != "unknown.1"

    async def test_all_at_once_log_in_once(self, cluster: Any, connect: Any) -> None:
        store = await connect(cluster.access(username="dkron", password="dkron-secret"))
        store.client.token = "unknown.1"
        calls = [asyncio.ensure_future(store.commit({}, {f"c/{number}": b""})) for number in range(50)]
        revisions = await asyncio.gather(*calls)
        assert len(set(revisions)) == 50

    async def test_tokens_expire(
        self, start: Any, keyspace: str, connect: Any, until: Any, etcd_version: tuple[int, ...]
    ) -> None:
        if etcd_version < (3, 5):
            pytest.skip("the lifetime of simple tokens cannot be set before etcd 3.5")
        cluster = start(1, ["--auth-token-ttl", "1", "--log-level", "debug"])
        ask(cluster, "role/add", name="root")
        make_users(cluster, keyspace)
        store = await connect(cluster.access(username="dkron", password="dkron-secret"))
        revision = await store.commit({}, {"c/count": b"start"})
        watch = store.watch("c/", revision)
        tokens = {store.client.token}
        while len(tokens) < 3:
            await until(lambda: forgotten(cluster, store.client.token))  # no call tells: it would keep the token alive
            await store.commit({}, {"c/count": b"%d" % len(tokens)})
            assert [change.value for change in await anext(watch)] == [b"%d" % len(tokens)]
            tokens.add(store.client.token)
        await watch.aclose()


async def test_a_user_where_none_is_wanted(one: Any, connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = await connect(one.access(username="dkron", password="secret"))
    await store.commit({}, {"c/a": b""})
    assert "authentication is not enabled there" in caplog.text


class TestKeyspaces:
    async def test_two_do_not_see_each_other(self, one: Any, keyspace: str, connect: Any) -> None:
        mine, other = await connect(one.access()), await connect(one.access(), f"{keyspace}2")
        revision = (await mine.range("")).revision
        watch = mine.watch("", revision)
        await other.commit({"c/a": 0}, {"c/a": b"other"})
        assert (await mine.range("")).entries == []
        await mine.commit({"c/a": 0}, {"c/a": b"mine"})
        assert [change.value for change in await anext(watch)] == [b"mine"]
        await watch.aclose()
        await mine.commit({}, {}, ["c/a"])
        assert [entry.value for entry in (await other.range("")).entries] == [b"other"]

    async def test_histories_neither(self, one: Any, keyspace: str) -> None:
        stores = [EtcdResultStore(one.access(), f"{keyspace}{number}") for number in ("", "2")]
        for store in stores:
            await store.open()
        await stores[0].save([(RECORD, b"mine")])
        assert await stores[1].list("backup") == []
        assert await stores[1].delete("backup") == 0
        assert await stores[0].output("backup", RECORD.id) == b"mine"
        for store in stores:
            await store.close()
