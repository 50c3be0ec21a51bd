"""A deleted machine is found again as it was left: on the simulation, and on the real backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iaas.client import Instance, NotFound
from iaas.db.repositories import shared
from iaas.db.store import Store
from iaas.kernel.clock import CloudClock
from tests.e2e.cloud_server import CloudServer
from tests.real_host import PARENT, new_test_folder, remove_killed_runs, require_real_host

READY_TIMEOUT_S = 180
KINDS = ("container", "vm")


@pytest.fixture(params=["sim", pytest.param("real", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CloudServer]:
    if request.param == "real":
        require_real_host()
        remove_killed_runs()
        PARENT.mkdir(parents=True, exist_ok=True)
        tag, state_dir = new_test_folder()
    else:
        tag, state_dir = "", tmp_path / "state"
    made = CloudServer(request.param, state_dir, tag, extra=["--retention", "3600"])
    try:
        made.start()
        yield made
    finally:
        made.close()
        if request.param == "real":
            from iaas.drivers.linux.cleanup import leftovers, remove_deployment

            remove_deployment(tag, state_dir)
            assert leftovers(tag, state_dir) == []


def take_macs(server: CloudServer, instances: list[Instance]) -> None:
    """Let somebody else have the MACs of deleted instances, in the database of the stopped server."""
    store = Store(f"sqlite:///{server.state_dir / 'cloud.db'}", CloudClock())
    try:
        for number, instance in enumerate(instances):
            scope, mac, thief = f"mac:{instance.zone}", instance.nics[0].mac, f"nic-thief00{number}"
            assert store.write(
                lambda tx, at=scope, it=mac, to=thief: shared.claim(tx, scope=at, value=it, resource_id=to)
            )
    finally:
        store.close()


def test_a_deleted_machine_comes_back_with_its_disk_though_its_mac_is_taken(server: CloudServer) -> None:
    before: list[Instance] = []
    with server.client() as client:
        for kind in KINDS:
            web = client.instances.create(kind=kind, image="tiny", flavor="nano", name=f"web-{kind}").wait()
            web = web.wait_until_ready(timeout_s=READY_TIMEOUT_S)
            assert web.execute(["sh", "-c", "echo kept > /root/note; sync"]).exit_code == 0
            before.append(web)
        for web in before:
            web.delete().wait()
            with pytest.raises(NotFound):
                client.instances.get(web.id)
    server.stop()
    take_macs(server, before)
    server.start()
    with server.client() as client:
        for web in before:
            gone = client.instances.get_deleted(web.id)
            assert gone.status == "deleted"
            assert gone.purge_at is not None
            back = gone.recover().wait()
            assert (back.status, back.address, back.host_id) == ("stopped", web.address, web.host_id)
            mac = back.nics[0].mac
            assert mac != web.nics[0].mac
            back = back.start().wait().wait_until_ready(timeout_s=READY_TIMEOUT_S)
            assert back.execute(["cat", "/root/note"]).stdout == "kept\n"
            assert mac in back.execute(["ip", "link"]).stdout
        # The thieves' claims are nobody's, which the doctor says; nothing else is wrong.
        findings = client.doctor.check().findings
        assert [each.drift for each in findings] == ["orphan_claim"] * len(KINDS), findings
        for web in before:
            client.instances.get(web.id).delete().wait()
            client.instances.get_deleted(web.id).delete(purge=True).wait()
            assert client.instances.get_deleted(web.id).purged_at is not None
        assert sum(host.disk_gib_used for host in client.hosts.list()) == 0
