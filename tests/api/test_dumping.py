from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from marshmallow import Schema, fields

from iaas.api.v1 import address_reservations, events, instances, jobs, nics, quotas, subnets, vpc_entries, vpcs
from iaas.api.v1.dumping import ValueSchema, prepared_dump, prepared_json
from iaas.kernel.errors import Failure, ResourceRef
from iaas.resources.jobs import Event
from iaas.resources.networks import (
    NIC,
    VPC,
    AddressReservation,
    DHCPOptions,
    DNSRecord,
    Forwarder,
    Pair,
    Route,
)
from iaas.resources.quotas import Quota
from tests.factories import open_cloud, operator, settle, wish

NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def samples() -> dict[type[Schema], list[Any]]:
    """At least one value with all optional parts and one without, for every schema that is dumped prepared."""
    with open_cloud() as cloud:
        asker = operator(cloud)
        instance, job = cloud.instances.create(asker, [wish(labels={"a": "b", "tier": ""})])[0]
        settle(cloud)
        running = cloud.instances.get(asker, instance.id)
        done = cloud.jobs.get(asker, job.id)
        basic = cloud.subnets.get(asker, "basic")
    event = Event(
        id=7,
        type="instance.created",
        project_id="proj-1",
        resource=ResourceRef("instance", "i-1"),
        generation=None,
        job_id=None,
        request_id=None,
        created_at=NOON,
        data={"deep": {"er": [1, None, "x"]}},
    )
    times = {"created_at": NOON, "updated_at": NOON}
    named = {"project_id": "proj-1", "name": "n", "labels": {"a": "b"}, **times}
    failed = Failure("timed_out", "too slow")
    vpc = VPC(
        id="vpc-1",
        status="active",
        transition=None,
        failure=None,
        generation=3,
        cidr="10.0.0.0/16",
        dns_domain="internal",
        dhcp_options=DHCPOptions(dns_servers=("10.0.0.9",), lease_s=60),
        forwarders=(Forwarder(domain="cluster.local", servers=("10.0.0.8", "10.0.0.9")),),
        revision=2,
        applied_revision=1,
        **named,
    )
    nic = NIC(
        id="nic-1",
        zone="zone-1",
        status="in_use",
        transition="detaching",
        generation=1,
        subnet_id="net-1",
        vpc_id="vpc-1",
        mac="52:54:00:00:00:01",
        address="10.0.0.5",
        secondary_addresses=("10.0.0.6",),
        allowed_pairs=(Pair(cidr="10.1.0.0/24"), Pair(cidr="10.2.0.0/24", mac="52:54:00:00:00:02")),
        instance_id="i-1",
        device_index=1,
        **named,
    )
    route = Route(
        id="rt-1",
        project_id="proj-1",
        vpc_id="vpc-1",
        destination="10.9.0.0/16",
        target_type="nic",
        target="nic-1",
        next_hop=None,
        **times,
    )
    record = DNSRecord(
        id="dns-1", project_id="proj-1", vpc_id="vpc-1", name="db", type="A", values=("10.0.0.5",), ttl_s=60, **times
    )
    return {
        vpcs.VPCSchema: [vpc, replace(vpc, transition="deleting", failure=failed, forwarders=())],
        subnets.SubnetSchema: [basic, replace(basic, vpc_id=None, cidr=None, gateway=None, failure=failed)],
        nics.NICSchema: [
            nic,
            replace(nic, vpc_id=None, address=None, instance_id=None, device_index=None, allowed_pairs=()),
        ],
        vpc_entries.RouteSchema: [route, replace(route, target_type="address", target="10.0.0.5", next_hop="10.0.0.5")],
        vpc_entries.DNSRecordSchema: [record],
        address_reservations.AddressReservationSchema: [
            AddressReservation(id="rsv-1", subnet_id="net-1", first="10.0.0.8", last="10.0.0.9", **named)
        ],
        instances.InstanceSchema: [
            instance,
            running,
            replace(instance, failure=Failure("out_of_capacity", "no room"), deleted_at=NOON, nics=()),
        ],
        quotas.QuotaSchema: [Quota(resource="instances", limit=10, used=3)],
        jobs.JobSchema: [job, done, replace(done, error=Failure("timed_out", "too slow"))],
        events.EventSchema: [event, Event(**{**vars_of(event), "generation": 3, "job_id": "job-1"})],
    }


def vars_of(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def test_every_prepared_schema_dumps_as_marshmallow_does() -> None:
    found = samples()
    ours = {each for each in subclasses(ValueSchema) if each.__module__.startswith("iaas.")}
    assert ours == set(found)
    for schema, values in found.items():
        for value in values:
            expected = Schema.dump(schema(), value)
            dumped = schema().dump(value)
            assert dumped == expected
            assert list(dumped) == list(expected)
        assert schema().dump(values, many=True) == Schema.dump(schema(), values, many=True)


def test_json_of_instances_is_that_of_what_marshmallow_dumps() -> None:
    write = prepared_json(instances.InstanceSchema)
    for value in samples()[instances.InstanceSchema]:
        odd = replace(value, name='"\\ü\N{GRINNING FACE} %s', labels={"%d": '"'}, key_pairs=["a", 'b"'])
        for each in (value, odd):
            assert write(each) == json.dumps(Schema.dump(instances.InstanceSchema(), each))


def test_what_has_no_prepared_way_is_refused() -> None:
    class Odd(ValueSchema):
        a = fields.String()
        b = fields.Float()

    with pytest.raises(TypeError, match="Float"):
        prepared_dump(Odd)
    with pytest.raises(TypeError, match="Float"):
        prepared_json(Odd)


def subclasses(base: type) -> set[type]:
    direct = set(base.__subclasses__())
    return direct.union(*(subclasses(each) for each in direct))
