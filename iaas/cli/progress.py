"""Waiting with something to look at: a spinner on a terminal, a line per step elsewhere; all on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from iaas.cli.exit_status import printable
from iaas.client import Job


@contextlib.contextmanager
def progress(label: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a sentence about ``label``, until the block ends."""
    label = printable(label)
    if not sys.stderr.isatty():
        yield lambda text: _write_line(f"{label}: {printable(text)}")
        return
    # Only a terminal pays for loading it.
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True, highlight=False).status(escape(label)) as status:
        yield lambda text: status.update(escape(f"{label}: {printable(text)}"))


def describe(job: Job) -> str:
    """Return where a job is: ``instance.create 2/5 ensure_machine``, or how it ended."""
    if job.is_finished or not job.progress or not job.progress.steps:
        return f"{job.action} {job.status}"
    step = f"{job.action} {job.progress.step}/{job.progress.steps} {job.progress.name}".rstrip()
    return f"{step}: {job.progress.message}" if job.progress.message else step


def _write_line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
