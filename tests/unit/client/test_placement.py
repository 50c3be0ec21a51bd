from __future__ import annotations

import httpx

from iaas.client import Client, Placement, PlacementRule
from tests.unit.client.fake_cloud import FakeCloud


def test_rules_go_into_the_body(client: Client, cloud: FakeCloud) -> None:
    placement = Placement(
        affinity=PlacementRule(instances=["web"]),
        anti_affinity=PlacementRule(labels={"app": "db"}, strict=False),
        host="one",
    )
    client.instances.create(kind="vm", image="tiny", flavor="small", placement=placement)
    assert cloud.body()["placement"] == {
        "affinity": {"instances": ["web"], "strict": True},
        "anti_affinity": {"label_selector": "app=db", "strict": False},
        "host": "one",
    }


def test_without_rules_nothing_is_said(client: Client, cloud: FakeCloud) -> None:
    client.instances.create(kind="vm", image="tiny", flavor="small")
    assert "placement" not in cloud.body()


def test_a_deleted_instance_is_looked_up_recovered_and_purged(client: Client, cloud: FakeCloud) -> None:
    cloud.add_instance("web", status="deleted", deleted_at="2026-01-31T12:00:00.000Z")
    gone = client.instances.get_deleted("i-00000001")
    assert dict(cloud.requests[-1].url.params) == {"deleted": "true"}
    assert gone.deleted_at is not None
    gone.recover(name="web-2")
    assert cloud.requests[-1].url.path == "/v1/instances/i-00000001/actions/recover"
    assert cloud.body() == {"name": "web-2"}
    gone.delete(purge=True)
    assert dict(cloud.requests[-1].url.params) == {"purge": "true"}
    gone.delete()
    assert not cloud.requests[-1].url.params


def test_hosts_are_drained(client: Client, cloud: FakeCloud) -> None:
    cloud.plain["hosts"].append({"id": "host-00000001", "name": "one", "status": "up", "vcpu_overcommit": 2.5})
    host = client.hosts.get("one")
    assert host.vcpu_overcommit == 2.5
    assert host.update(status="draining").status == "draining"
    request: httpx.Request = cloud.requests[-1]
    assert (request.method, cloud.body()) == ("PATCH", {"status": "draining"})
