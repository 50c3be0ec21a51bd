"""The ``iaas`` command: runs it, and turns whatever goes wrong into one line and an exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import typer

from iaas.cli.app import build_app
from iaas.cli.exit_status import CommandError, ExitStatus, exit_status, one_line
from iaas.cli.plugins import Plugins
from iaas.cli.session import Session
from iaas.client.errors import IaasError
from iaas.kernel.errors import CloudError


def main(argv: Sequence[str] | None = None, *, session: Session | None = None, plugins: Plugins | None = None) -> int:
    """Run one command line (this process's own when absent) and return its exit status.

    ``session`` and ``plugins`` are for tests.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what this terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        words = sys.argv[1:] if argv is None else argv
        # A server starts without making the hundred commands of its clients.
        root = typer.main.get_command(build_app(plugins, with_nouns=list(words[:1]) != ["serve"]))
        status = root.main(args=argv, prog_name="iaas", standalone_mode=False, obj=session)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except typer.Abort:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        return _reader_has_gone()
    except SystemExit as leaving:
        # Typer meets a broken pipe first, and leaves with a status that says nothing.
        if isinstance(leaving.__context__, BrokenPipeError):
            return _reader_has_gone()
        raise
    except typer.TyperException as error:
        return _usage(error)
    except (IaasError, CloudError, CommandError) as error:
        return _fail(one_line(error), exit_status(error))
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        return _fail(f"{subject}{error.strerror or error}", ExitStatus.ERROR)
    return status if isinstance(status, int) else ExitStatus.OK


def _reader_has_gone() -> int:
    # It was head, or less. Python flushes once more at its end: give it somewhere to.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return ExitStatus.BROKEN_PIPE


def _usage(error: typer.TyperException) -> int:
    message = error.format_message().rstrip(".")
    if not message:  # a noun without a verb: Typer has shown the help instead
        return error.exit_code
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return _fail(one_line(CommandError(message)) + hint, error.exit_code)


def _fail(line: str, status: int) -> int:
    sys.stderr.write(f"iaas: {line}\n")
    return status
