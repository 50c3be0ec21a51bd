"""A deleted machine is found again as it was left: on the simulation, and on the real backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iaas.client import NotFound
from tests.e2e.cloud_server import CloudServer
from tests.real_host import PARENT, new_test_folder, remove_killed_runs, require_real_host

READY_TIMEOUT_S = 180
KINDS = {"sim": ("container", "vm"), "real": ("container",)}  # an emulated VM takes long and tells nothing more here


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


def test_a_deleted_machine_comes_back_with_its_disk(server: CloudServer) -> None:
    with server.client() as client:
        for kind in KINDS[server.backend]:
            web = client.instances.create(kind=kind, image="tiny", flavor="nano", name=f"web-{kind}").wait()
            web = web.wait_until_ready(timeout_s=READY_TIMEOUT_S)
            assert web.execute(["sh", "-c", "echo kept > /root/note; sync"]).exit_code == 0
            web.delete().wait()
            with pytest.raises(NotFound):
                client.instances.get(web.id)
            gone = client.instances.get_deleted(web.id)
            assert gone.status == "deleted"
            assert gone.purge_at is not None
            back = gone.recover().wait()
            assert (back.status, back.address, back.host_id) == ("stopped", web.address, web.host_id)
            back = back.start().wait().wait_until_ready(timeout_s=READY_TIMEOUT_S)
            assert back.execute(["cat", "/root/note"]).stdout == "kept\n"
            back.delete().wait()
            client.instances.get_deleted(web.id).delete(purge=True).wait()
            assert client.instances.get_deleted(web.id).purged_at is not None
            assert sum(host.disk_gib_used for host in client.hosts.list()) == 0
