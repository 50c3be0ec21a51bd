"""Debian packages: found and fetched with the host's own apt, unpacked into a folder, never installed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from iaas.drivers.images.commands import find_tool, run_tool
from iaas.drivers.interface import PermanentError, TransientError

APT_TIMEOUT_S = 600.0
# The dependencies that can hold a shared library; others (init systems, configuration) are not for us.
LIBRARY_PACKAGE = re.compile(r"^(lib|zlib)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package as the mirror offers it now."""

    name: str
    version: str
    sha256: str
    depends: tuple[tuple[str, ...], ...]  # alternatives, all of the outer must be met


def parse_package(stanza: str) -> Package:
    """Return the package that one stanza of ``apt-cache show`` describes.

    Source: Debian policy manual, chapter 5 (control files) and 7.1 (syntax of relationship fields).
    """
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            fields[key] = value.strip()
    depends = []
    for field in ("Pre-Depends", "Depends"):
        for clause in filter(None, (part.strip() for part in fields.get(field, "").split(","))):
            names = tuple(re.split(r"[\s:(\[]", name.strip(), maxsplit=1)[0] for name in clause.split("|"))
            depends.append(names)
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        sha256=fields.get("SHA256", ""),
        depends=tuple(depends),
    )


class Apt:
    """The configured mirrors of this host, read without root.

    Args:
        state_dir: where own package lists go when the host's are absent or out of date.
        progress: told sentences for people.
    """

    def __init__(self, state_dir: Path, progress: Callable[[str], None]) -> None:
        self._apt_get = find_tool("apt-get", package="apt")
        self._apt_cache = find_tool("apt-cache", package="apt")
        self._state_dir = state_dir
        self._progress = progress
        # As root, apt would fetch as the user _apt, who cannot write into our folder.
        self._options = ["-o", "APT::Sandbox::User=root", "-q"]

    def refresh(self) -> None:
        """Fetch package lists into our own folder and use them from now on; the host's stay as they are."""
        self._progress("Fetching the package lists of the configured mirror")
        lists, cache = self._state_dir / "lists", self._state_dir / "cache"
        for folder in (lists, cache):
            (folder / "partial").mkdir(parents=True, exist_ok=True)
        self._options += ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
        run_tool([self._apt_get, *self._options, "update"], timeout_s=APT_TIMEOUT_S)

    def find(self, names: Iterable[str]) -> dict[str, Package]:
        """Return the packages among ``names`` that the mirror has, in the version apt would install."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        try:
            text = run_tool([self._apt_cache, *self._options, "show", "--no-all-versions", *wanted], timeout_s=60)
        except TransientError:
            # One unknown name among many makes the whole command fail (apt 3) or only warn (apt 2).
            text = "" if len(wanted) == 1 else "\n\n".join(self._show_or_nothing(name) for name in wanted)
        stanzas = [stanza for stanza in re.split(r"\n\s*\n", text) if stanza.strip()]
        return {package.name: package for package in map(parse_package, stanzas)}

    def _show_or_nothing(self, name: str) -> str:
        try:
            return run_tool([self._apt_cache, *self._options, "show", "--no-all-versions", name], timeout_s=60)
        except TransientError:
            return ""

    def with_libraries(self, roots: Iterable[str]) -> dict[str, Package]:
        """Return the packages ``roots`` and, transitively, the library packages they depend on.

        Raises:
            PermanentError: the mirror has no package of one of those names.
        """
        found: dict[str, Package] = self.find(roots)
        for name in roots:
            if name not in found:
                raise PermanentError(f"the configured mirror has no package {name}")
        edge = list(found.values())
        while edge:
            wanted = {
                name
                for package in edge
                for alternatives in package.depends
                for name in alternatives[:1]
                if LIBRARY_PACKAGE.match(name) and name not in found
            }
            new = self.find(wanted)
            found |= new
            edge = list(new.values())
        return found

    def download(self, packages: Mapping[str, Package], into: Path) -> list[Path]:
        """Fetch ``packages`` into the folder ``into`` (made here); apt checks their signatures and sums.

        Raises:
            TransientError: the mirror did not answer.
        """
        into.mkdir(parents=True)
        exact = [f"{package.name}={package.version}" for package in packages.values()]
        run_tool([self._apt_get, *self._options, "download", *exact], timeout_s=APT_TIMEOUT_S, cwd=into)
        files = sorted(into.glob("*.deb"))
        if len(files) != len(packages):
            raise TransientError(f"the mirror gave {len(files)} of {len(packages)} packages")
        return files


def unpack(files: Iterable[Path], into: Path) -> None:
    """Unpack package files into the folder ``into``; none of their scripts runs."""
    dpkg_deb = find_tool("dpkg-deb", package="dpkg")
    into.mkdir(parents=True, exist_ok=True)
    for file in files:
        run_tool([dpkg_deb, "--extract", file, into], timeout_s=120)


def find_file(tree: Path, *candidates: str) -> Path:
    """Return the first of ``candidates`` under ``tree``; releases differ in what is merged into ``/usr``.

    Raises:
        PermanentError: none is there.
    """
    for candidate in candidates:
        path = tree / candidate
        if os.path.lexists(path):
            return path
    raise PermanentError(f"the packages of the configured mirror have no {candidates[0]}")
