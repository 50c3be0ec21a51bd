from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from bench import aims, churn, compare
from bench.rows import LABEL, RARE, RARE_ROWS, fill
from tests.factories import open_cloud, operator, settle, wish


def verdicts(results: dict[str, Any]) -> dict[str, bool]:
    return {each.text: each.is_met for each in aims.judge(results)}


def test_an_aim_is_met_at_its_limit_and_missed_beyond() -> None:
    assert set(verdicts({"start": {"answer_s": 1.0, "pss_mib": 90.0}}).values()) == {True}
    assert set(verdicts({"start": {"answer_s": 1.01, "pss_mib": 90.1}}).values()) == {False}
    assert set(verdicts({"native": {"batch": {"accepted_per_s": 5000.0}}}).values()) == {True}
    assert set(verdicts({"native": {"batch": {"accepted_per_s": 4999.0}}}).values()) == {False}


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert verdicts({"real": {"left_out": ["no root"]}, "million": {"100": {"page_p50_ms": 1.0}}}) == {}


def test_what_grows_with_the_rows_is_missed() -> None:
    small, large = {"page_cpu_ms": 2.0, "pss_mib": 80.0}, {"page_cpu_ms": 2.5, "pss_mib": 81.0}
    found = verdicts({"million": {"1000": small, "1000000": large}})
    assert sorted(found.values()) == [False, True]
    assert any("page with 1,000,000 instances over 1,000: 1.25" in text for text, is_met in found.items() if not is_met)


def test_ratios_are_above_one_where_ours_is_ahead() -> None:
    assert compare.ratio("create_per_s", 200.0, 100.0) == 2.0
    assert compare.ratio("page_of_100_ms", 2.0, 5.0) == 2.5


def test_growth_is_the_end_over_half_way() -> None:
    sizes = (50.0, 80.0, 100.0, 90.0, 120.0, 110.0)
    samples = [{"deleted": 1.0, "pss_mib": size, "files_mib": 10.0, "fds": 40} for size in sizes]
    assert churn.growth(samples) == {"pss_mib": 1.1, "files_mib": 1.0, "fds": 1.0}


def test_a_filled_cloud_lists_its_copies_and_counts_them(tmp_path: Path) -> None:
    with open_cloud(tmp_path) as cloud:
        asker = operator(cloud)
        instance, _ = cloud.instances.create(asker, [wish()])[0]
        settle(cloud)
        fill(tmp_path, instance.id, have=0, want=200)
        fill(tmp_path, instance.id, have=200, want=300)
        copy = cloud.instances.get(asker, "copy-00000300")
        assert (copy.id, copy.status, copy.labels) == ("i-00000300", "running", {LABEL: "common"})
        assert cloud.instances.get(asker, f"i-{RARE_ROWS:08d}").labels == {LABEL: RARE}
        assert {each.resource: each.used for each in cloud.quotas.own(asker)}["instances"] == 301
        machines = sqlite3.connect(tmp_path / "sim.db")
        assert machines.execute("SELECT count(*) FROM machines").fetchone() == (301,)
        machines.close()
