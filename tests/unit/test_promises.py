"""Every proof that docs/promises.md names is a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROOF = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def proofs() -> list[tuple[str, str]]:
    return PROOF.findall((ROOT / "docs/promises.md").read_text())


@pytest.mark.parametrize(("file", "name"), proofs())
def test_a_promise_names_a_test_that_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name in functions if name else any(function.startswith("test_") for function in functions)


def test_every_promise_has_a_proof() -> None:
    lines = (ROOT / "docs/promises.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and line != "| promise | proof |"]
    assert rows
    assert [row for row in rows if not PROOF.search(row)] == []
