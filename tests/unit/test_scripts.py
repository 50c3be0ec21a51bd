"""The scripts, as far as they can be tried without installing anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_plain_sh_and_stop_at_the_first_error(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)
    # check goes on to the end, and says then what failed.
    assert re.search(r"^set -eu$", text, re.MULTILINE) or script.name == "check"
    for shell in filter(None, map(shutil.which, ("sh", "dash"))):
        done = run(shell, "-n", script)
        assert (done.returncode, done.stderr) == (0, "")


def test_ci_calls_the_tests_and_nothing_else() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert text.endswith("exec scripts/test </dev/null\n")


def test_set_up_without_a_fit_python_is_refused_in_a_line(tmp_path: Path) -> None:
    done = run("scripts/setup-python", PYTHON="false", VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert done.stderr == ("setup-python: this needs Python 3.11 or newer; PYTHON=/path/to/python3 names one\n")
    assert not (tmp_path / "venv").exists()


def test_set_up_of_an_unknown_part_is_refused(tmp_path: Path) -> None:
    done = run("scripts/setup-python", "everything", VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "unknown part: everything" in done.stderr


def test_skipped_tests_are_listed_by_reason(tmp_path: Path) -> None:
    skip = '<testcase name="{}"><skipped message="{}"/></testcase>'
    report = tmp_path / "report.xml"
    cases = skip.format("a", "no KVM") + skip.format("b", "no KVM") + skip.format("c", "no curl")
    report.write_text(f'<testsuites><testsuite>{cases}<testcase name="d"/></testsuite></testsuites>')
    done = run(sys.executable, "scripts/skipped.py", report)
    assert done.stdout.splitlines() == ["Skipped: 3 tests.", "     2  no KVM", "     1  no curl"]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
    shown = [line.split()[0] for line in run("make", "help").stdout.splitlines()]
    assert shown == targets


def test_run_explains_its_settings() -> None:
    done = run("scripts/run", "--help")
    assert done.returncode == 0
    for setting in ("BACKEND", "ONCE", "LISTEN", "STATE", "VIRT_TYPE"):
        assert setting in done.stdout
