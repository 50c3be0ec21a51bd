"""A short run of ``make torture``, so that the program itself stays sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.chaos.torture import SIM, torture_sim


def test_three_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    counted = torture_sim(tmp_path / "state", replace(SIM, kills=3, clients=3), seed=1)
    assert counted["kills"] == 3
    assert counted["acknowledged"] > 0
    assert counted["keys"] > 0
