from __future__ import annotations

import subprocess
import sys

import typer

from iaas.cli.plugins import noun
from tests.unit.cli.conftest import Run

HERE = "tests.unit.cli.test_plugins"


def register_host(app: typer.Typer) -> None:
    hosts = noun(app, "host")

    @hosts.command("check")
    def check() -> None:
        """Say what the host lacks."""
        sys.stdout.write("all is well\n")


def register_serve(app: typer.Typer) -> None:
    @app.command("serve")
    def serve(port: int = 0) -> None:
        """Run the server."""
        sys.stdout.write(f"serving at {port}\n")


def register_moon(app: typer.Typer) -> None:
    moons = noun(app, "moon", help="Moons.")

    @moons.command("list")
    def list_moons() -> None:
        sys.stdout.write("Io\n")

    @moons.command("get")
    def get_moon() -> None:
        """Show one."""


def register_failing(app: typer.Typer) -> None:
    raise OSError("no compiler here")


PLUGINS = [f"host={HERE}:register_host", f"serve={HERE}:register_serve", f"moon={HERE}:register_moon"]


def test_command_joins_a_noun_that_is_there(run: Run) -> None:
    assert run("host", "check", plugins=PLUGINS).out == "all is well\n"
    assert run("host", "list", plugins=PLUGINS).out.startswith("ID")


def test_new_commands_and_nouns_join(run: Run) -> None:
    assert run("serve", "--port", "7", plugins=PLUGINS).out == "serving at 7\n"
    assert run("moon", "list", plugins=PLUGINS).out == "Io\n"


def test_help_lists_them(run: Run) -> None:
    top = run("--help", plugins=PLUGINS).out
    assert "serve" in top
    assert "moon" in top
    assert "check" in run("host", "--help", plugins=PLUGINS).out


def test_broken_plugin_hurts_nobody_who_does_not_ask_for_it(run: Run) -> None:
    broken = ["host=iaas.no_such_module:register", f"serve={HERE}:register_failing", "image=iaas.cli:nothing"]
    assert run("host", "list", plugins=broken).err == ""
    top = run("--help", plugins=broken)
    assert top.status == 0
    assert "instance" in top.out
    assert top.err.count("\n") == 3
    result = run("host", "check", plugins=broken)
    assert result.status == 1
    assert result.err.startswith("iaas: the commands of 'host' cannot be loaded: ModuleNotFoundError")
    assert (
        run("serve", plugins=broken).err
        == "iaas: the commands of 'serve' cannot be loaded: OSError: no compiler here\n"
    )


def test_sdk_and_cli_import_no_server_code() -> None:
    code = (
        "import sys, iaas.cli.main, iaas.client.tunnel\n"
        "print([m for m in sys.modules if m.startswith(('iaas.api', 'iaas.db', 'iaas.services', 'iaas.drivers',"
        " 'flask', 'sqlalchemy'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
