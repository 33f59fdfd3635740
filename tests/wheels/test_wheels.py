"""Every distribution builds, and its wheel holds what it should. `tox run -e wheels` brings what the building needs."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import dkron

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
EXAMPLES = sorted(path.parent for path in (ROOT / "extras" / "examples").glob("*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return loaded


def build(folder: Path, what: str, out: Path) -> Path:
    command = [sys.executable, "-m", "build", f"--{what}", "--no-isolation", "--outdir", str(out), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS, *EXAMPLES], ids=lambda folder: project(folder)["name"])
def test_the_wheel_is_whole(folder: Path, tmp_path: Path) -> None:
    about = project(folder)
    package = about["name"].replace("-", "_")
    with zipfile.ZipFile(build(folder, "wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        assert {name.partition("/")[0] for name in names} == {package, f"{package}-{about['version']}.dist-info"}
        sources = {f"{path.relative_to(folder)}" for path in (folder / package).rglob("*.py")}
        assert sources | {f"{package}/py.typed"} <= names
        head = metadata(wheel, "METADATA")
        assert f"\nVersion: {about['version']}\n" in head
        assert "\nLicense-Expression: Apache-2.0\n" in head
        assert "\nRequires-Python: >=3.11\n" in head
        assert head.partition("\n\n")[2].strip(), "the README is missing"


@pytest.mark.parametrize("folder", PLUGINS + EXAMPLES, ids=lambda folder: project(folder)["name"])
def test_a_plugin_is_one_as_pip_sees_it(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(folder, "wheel", tmp_path)) as wheel:
        assert re.search(r"^\[dkron\]\n\w+ = \w+", metadata(wheel, "entry_points.txt"), re.MULTILINE)
        assert re.search(r"^Requires-Dist: dkron>=0\.\d", metadata(wheel, "METADATA"), re.MULTILINE)


def test_the_program_comes_with_the_core(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(ROOT, "wheel", tmp_path)) as wheel:
        assert "dkron = dkron.cli.main:main" in metadata(wheel, "entry_points.txt")


def test_the_source_distribution_has_no_more_than_it_needs(tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path)) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert tops == {"dkron", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}


def test_the_extra_and_the_requirements_name_every_bundled_plugin() -> None:
    names = {project(folder)["name"] for folder in PLUGINS}
    assert set(project(ROOT)["optional-dependencies"]["default"]) == names
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {line for line in lines if not line.startswith("#")}
    assert required == {".", *(f"./plugins/{folder.name}" for folder in PLUGINS)}


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_is_called_like_its_folder(folder: Path) -> None:
    about = project(folder)
    assert about["name"] == f"dkron-{folder.name.replace('_', '-')}"
    assert list(about["entry-points"]["dkron"]) == [folder.name.partition("_")[0]]


def test_the_task_runner_knows_every_plugin() -> None:
    tox = configparser.RawConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    for folder in PLUGINS:
        assert f"plugins/{folder.name}" in tox["testenv:py{311,312,313}-{shell,http,sqlite,log,etcd}"]["set_env"]
    for folder in PLUGINS:
        assert f"plugins/{folder.name}" in tox["testenv"]["commands_pre"]
        assert f"plugins/{folder.name}" in tox["testenv:type"]["commands"]
    assert all(tox.has_option(section, "description") for section in tox.sections() if section.startswith("testenv"))


def test_the_version_is_said_once() -> None:
    assert project(ROOT)["version"] == dkron.__version__
