"""What README and quick start tell people to type, typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TIMEOUT_S = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(BIN / "iaas", tmp_path / "state") as started:
        yield started


def block(page: str, heading: str, language: str) -> str:
    """Return the first code block of that language below a heading."""
    below = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2]
    found = re.search(rf"```{language}\n(.*?)```", below, re.DOTALL)
    assert found, f"{page} has no {language} block below {heading!r}"
    return found[1]


def typed(program: list[str], text: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IAAS_")}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    done = subprocess.run(
        program,
        input=text,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_tour_of_the_readme(server: ServerProcess) -> None:
    tour = block("README.md", "A tour", "sh")
    tour = tour.replace("http://127.0.0.1:7780", server.url).replace(".iaas/run", "state")
    tour = tour.replace(". .venv/bin/activate", "")
    text = typed(["sh", "-eu"], tour.replace("curl ", "curl --fail --silent --show-error "), server.state.parent)
    assert re.search(r"^i-\w{8}", text, re.MULTILINE)
    assert re.search(r"^10\.\S+ db$", text, re.MULTILINE)
    assert '"transition":"stopping"' in text.replace(" ", "")


def test_the_quick_start_of_an_installed_package(tmp_path: Path) -> None:
    text = block("docs/quickstart.md", "Installed", "sh")
    # A person waits for the line 'ready URL' before typing on.
    text = text.replace("127.0.0.1:7780", "127.0.0.1:0").replace(" &\n", " >ready &\n", 1)
    first, rest = text.split("\n", 1)
    wait = "until grep -q ready ready; do kill -0 $!; sleep 0.1; done\n"
    # Without the redirection the server would keep our pipe open beyond the end of the shell.
    done = typed(["sh", "-eu"], f"trap 'kill $!; wait' EXIT\n{first}\n{wait}{rest}", tmp_path)
    assert re.search(r"^web$", done, re.MULTILINE)


def test_the_test_of_the_quick_start(tmp_path: Path) -> None:
    typed([sys.executable, "-"], block("docs/quickstart.md", "In a test", "python"), tmp_path)
