"""Running the programs an image is made with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from iaas.drivers.interface import PermanentError, TransientError

# A user's PATH may lack the folders where distributions keep mke2fs and debugfs.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def find_tool(name: str, *, package: str) -> str:
    """Return where the program ``name`` is.

    Raises:
        PermanentError: this host lacks it; the message names the Debian package that has it.
    """
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise PermanentError(f"this host lacks {name}, needed to build images (Debian package {package})")
    return found


def run_tool(argv: Sequence[str | Path], *, timeout_s: float, cwd: Path | None = None, stdin: str = "") -> str:
    """Run a program to its end and return its standard output.

    Raises:
        TransientError: it failed or took longer than ``timeout_s``; the message has the end of what it said.
    """
    program = Path(argv[0]).name
    try:
        done = subprocess.run(
            [str(part) for part in argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=cwd,
            timeout=timeout_s,
            env={**os.environ, "LC_ALL": "C", "PATH": SEARCH_PATH},
            check=True,
        )
    except subprocess.TimeoutExpired as exc:
        raise TransientError(f"{program} did not end within {timeout_s:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        said = (str(exc.stderr).strip() or str(exc.stdout).strip())[-400:]
        raise TransientError(f"{program} failed: {said}") from exc
    return done.stdout
