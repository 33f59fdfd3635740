from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.location import database_path
from dkron_sqlite_store.results import SqliteResultStore

from dkron.core.errors import InvalidInputError
from dkron.plugins import PluginSettings, StoreOptions
from dkron.plugins.manager import PluginManager


class TestHooks:
    async def test_both_stores_come_from_the_scheme(self, tmp_path: Path) -> None:
        plugins = PluginManager.load(PluginSettings(), only=["sqlite"])
        options = StoreOptions(data_dir=str(tmp_path))
        coordinator, result_store = plugins.coordinators()["sqlite"](options), plugins.result_stores()["sqlite"](options)
        assert plugins.problems == []
        assert isinstance(coordinator, SqliteCoordinator)
        assert isinstance(result_store, SqliteResultStore)
        await coordinator.open()
        await result_store.open()
        assert coordinator.database is result_store.database
        assert (tmp_path / "store" / "dkron.db").exists()
        await result_store.close()
        await coordinator.close()

    def test_a_worker_does_not_import_sqlite(self) -> None:
        program = "import sys, dkron_sqlite_store; sys.exit('sqlite3' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)


class TestLocation:
    @pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///"])
    def test_without_a_path_it_is_in_the_data_directory(self, url: str) -> None:
        assert database_path(StoreOptions(data_dir="/var/lib/dkron")) == Path("/var/lib/dkron/store/dkron.db")
        assert database_path(StoreOptions(urls=(url,), data_dir="/data")) == Path("/data/store/dkron.db")

    @pytest.mark.parametrize(
        ("url", "path"), [("sqlite:///a/b.db", "/a/b.db"), ("sqlite:/a/b.db", "/a/b.db"), ("sqlite:///a%20%3Fb", "/a ?b")]
    )
    def test_a_path_is_absolute(self, url: str, path: str) -> None:
        assert database_path(StoreOptions(urls=(url,), data_dir="/data")) == Path(path)

    @pytest.mark.parametrize(
        "url", ["sqlite://host/a.db", "sqlite:a.db", "sqlite:///a?mode=ro", "sqlite:///a#b", "sqlite:///a%00b"]
    )
    def test_what_names_no_file_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidInputError, match=r"store URL: .* does not name a file; write it as sqlite:///"):
            database_path(StoreOptions(urls=(url,), data_dir="/data"))

    def test_one_file_only(self) -> None:
        with pytest.raises(InvalidInputError, match="one file, not 2"):
            database_path(StoreOptions(urls=("sqlite:///a", "sqlite:///b")))

    def test_somewhere_it_must_be(self) -> None:
        with pytest.raises(InvalidInputError, match="data-dir: the embedded store needs"):
            database_path(StoreOptions())
