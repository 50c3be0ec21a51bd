"""The repository as a whole: packaging, import rules, locked versions, links."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SOURCES = ("iaas", "api", "drivers", "migrations")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path = ROOT, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("IAAS_", "PYTHONPATH"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def checked(*command: str | Path, cwd: Path = ROOT, timeout_s: float = 120) -> str:
    done = run(*command, cwd=cwd, timeout_s=timeout_s)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    """The source tree, copied with its links and without what was built."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in SOURCES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


# -- import rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("iaas/services/naming.py", "from iaas.api import wiring"),
        ("iaas/db/models/base.py", "from iaas.services import naming"),
        ("iaas/workflows/rows.py", "import flask"),
        ("iaas/client/errors.py", "from iaas.db import store"),
        ("iaas/services/placement.py", "from iaas.drivers.sim import world"),
        ("drivers/lxd/config.py", "from iaas.drivers.libvirt import errors"),
        ("drivers/sim/world.py", "from iaas.resources import common"),
        ("drivers/linux/links.py", "import pylxd"),
    ],
)
def test_an_import_against_the_arrows_is_found(copied_tree: Path, file: str, line: str) -> None:
    planted = copied_tree / file
    planted.write_text(planted.read_text() + f"\n\ndef planted() -> None:\n    {line}\n")
    # The copy's folder comes first on the path, before the installed project.
    script = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    done = run(sys.executable, "-c", script, "--no-cache", cwd=copied_tree)
    assert done.returncode == 1, done.stdout + done.stderr
    module = file.removesuffix(".py").replace("/", ".").removeprefix("iaas.")
    assert f"iaas.{module} " in done.stdout
    assert "1 broken" in done.stdout or "2 broken" in done.stdout


# -- locked versions ------------------------------------------------------------------------------------------


def locked(part: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{part}.lock").read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text)}


@pytest.mark.parametrize("part", ["base", "real", "fleet", "dev"])
def test_the_lock_satisfies_the_project(part: str) -> None:
    wanted = PROJECT["dependencies"] + (PROJECT["optional-dependencies"][part] if part != "base" else [])
    versions = locked(part)
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in requirements/{part}.lock: run 'make lock'"
        assert requirement.specifier.contains(version), f"{requirement} is locked as {version}: run 'make lock'"


def test_the_locks_agree_with_one_another() -> None:
    merged: dict[str, str] = {}
    for part in ("base", "real", "fleet", "dev"):
        for name, version in locked(part).items():
            assert merged.setdefault(name, version) == version, f"{name}: run 'make lock'"


def test_the_locks_name_no_server() -> None:
    for path in (ROOT / "requirements").glob("*.lock"):
        assert "://" not in path.read_text()
        assert "--index" not in path.read_text()


# -- packaging ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist (so that both are complete) with what is installed here."""
    tree = tmp_path_factory.mktemp("checkout") / "iaas"
    ignore = shutil.ignore_patterns("__pycache__", ".*", "build", "dist", "*.egg-info", "tests")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=ignore)
    out = tmp_path_factory.mktemp("dist")
    checked(BIN / "python", "-m", "build", "--no-isolation", "--outdir", out, cwd=tree, timeout_s=240)
    assert len(list(out.glob("iaas-*.tar.gz"))) == 1
    (found,) = out.glob("iaas-*-py3-none-any.whl")
    return found


@pytest.fixture(scope="module")
def fresh_environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A virtual environment outside the checkout with the wheel and its plain dependencies, nothing else."""
    venv = tmp_path_factory.mktemp("fresh") / "venv"
    uv = BIN / "uv"
    checked(uv, "venv", "--quiet", "--no-project", "--python", sys.executable, venv)
    lock = ROOT / "requirements" / "base.lock"
    target = ("--python", venv / "bin" / "python")
    checked(uv, "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", *target, "-r", lock)
    checked(uv, "pip", "install", "--quiet", "--no-deps", *target, wheel)
    return venv


@pytest.fixture
def server(fresh_environment: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(fresh_environment / "bin" / "iaas", tmp_path / "state") as started:
        yield started


def test_the_plain_wheel_runs_a_cloud_outside_the_checkout(
    fresh_environment: Path, server: ServerProcess, tmp_path: Path
) -> None:
    iaas = (fresh_environment / "bin" / "iaas", "--credentials", server.state / "credentials.json")
    create = ("instance", "create", "--kind", "container", "--image", "tiny", "--name", "web", "--wait", "--ready")
    checked(*iaas, *create, cwd=tmp_path)
    assert checked(*iaas, "instance", "exec", "web", "--", "hostname", cwd=tmp_path) == "web\n"
    python = fresh_environment / "bin" / "python"
    place = checked(python, "-c", "import iaas.migrations as m; print(m.__file__)", cwd=tmp_path)
    assert place.startswith(str(fresh_environment))


def test_old_databases_can_be_migrated_from_the_wheel(fresh_environment: Path, tmp_path: Path) -> None:
    script = """
from iaas.db.schema import current_revision, migrate
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock
from iaas.migrations import HEAD
store = Store("sqlite:///migrated.db", CloudClock())
migrate(store, None)
assert current_revision(store) == HEAD
"""
    checked(fresh_environment / "bin" / "python", "-c", script, cwd=tmp_path)


def test_the_plain_wheel_says_what_the_real_backend_lacks(fresh_environment: Path, tmp_path: Path) -> None:
    done = run(fresh_environment / "bin" / "iaas", "serve", "--backend", "real", "--state", tmp_path / "x" / "y")
    assert done.returncode != 0
    assert "pip install 'iaas[real]'" in done.stderr
    assert "Traceback" not in done.stderr


# -- texts ----------------------------------------------------------------------------------------------------


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_decision_has_a_number_of_its_own_and_is_listed() -> None:
    records = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    numbers = [name[:4] for name in records]
    assert len(set(numbers)) == len(numbers)
    index = (ROOT / "docs" / "index.md").read_text()
    assert [name for name in records if name not in index] == []
