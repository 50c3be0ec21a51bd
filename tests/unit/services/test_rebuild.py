"""The number of a rebuild's disk is chosen by the transaction that accepts it."""

from __future__ import annotations

import pytest

from iaas.cloud import Cloud
from iaas.drivers.interface import MachineKind
from iaas.kernel.errors import InvalidInput
from iaas.resources.common import Principal
from iaas.resources.instances import Instance
from tests.factories import assert_consistent, create, instance_row, open_cloud, operator, settle


def test_a_rebuild_that_was_overtaken_by_another_still_gets_a_fresh_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cloud() as cloud:
        made = create(cloud)
        real, overtakes = cloud.instances.get, iter([True])

        def get(principal: Principal, id_or_name: str) -> Instance:
            """Another rebuild comes and goes between our look at the instance and our write."""
            seen = real(principal, id_or_name)
            if next(overtakes, False):
                cloud.instances.rebuild(principal, id_or_name)
                settle(cloud)
            return seen

        monkeypatch.setattr(cloud.instances, "get", get)
        job = cloud.instances.rebuild(operator(cloud), made.id)[1]
        assert job.input["disk_generation"] == 2
        settle(cloud)
        assert _disks(cloud, made.id) == (2, 2)
        assert_consistent(cloud)


def test_a_refused_image_leaves_the_instance_at_rest() -> None:
    with open_cloud() as cloud:
        made = create(cloud)
        with pytest.raises(InvalidInput):
            cloud.instances.rebuild(operator(cloud), made.id, image="none")
        assert instance_row(cloud, made.id) == made
        assert _disks(cloud, made.id) == (0, 0)


def _disks(cloud: Cloud, instance_id: str) -> tuple[int, int]:
    """Return the disk's number as the row and as the machine has it."""
    row = instance_row(cloud, instance_id)
    state = cloud.backend.compute[MachineKind(row.kind)].inspect_machine(instance_id)
    assert state is not None
    return row.disk_generation, state.generation
