"""Make the data plane of networks be what the rows say, whatever it is now.

What is there already stays as it is: drivers take a spec that they have as done. So this is what a start after a
reboot does, and what brings a change whose job has failed for good. Comparing finds only what is missing by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from iaas.db.repositories import instances, subnets, vpcs
from iaas.db.store import Store
from iaas.drivers.interface import Backend, DriverError
from iaas.resources.networks import NetworkStatus
from iaas.workflows.network_specs import port_spec, subnet_spec, vpc_spec

log = structlog.get_logger(__name__)


def rebuild_networks(store: Store, backend: Backend, *, at_rest_only: bool, with_ports: bool = True) -> list[str]:
    """Ensure every active VPC and subnet, and the ports of all NICs that are in instances.

    A basic network that nobody uses is left out: it is made when somebody does.

    Args:
        at_rest_only: leave out what a job is at work on; while jobs run they would get in each other's way.
        with_ports: false where ports are many and cannot get lost (the simulation).

    Returns:
        The ids of what the driver refused; its reasons are in the log.
    """
    driver = backend.networks
    with store.read() as connection:
        hosted = instances.all_alive(connection)
        used = {nic.subnet_id for instance in hosted for nic in instance.nics}

        def is_wanted(status: str, transition: str | None) -> bool:
            return status == NetworkStatus.ACTIVE and (transition is None or not at_rest_only)

        segments = [
            subnet
            for subnet in subnets.all_subnets(connection)
            if is_wanted(subnet.status, subnet.transition) and (not subnet.is_shared or subnet.id in used)
        ]
        routers = {subnet.vpc_id for subnet in segments if subnet.vpc_id is not None} | {
            vpc.id
            for vpc in vpcs.all_vpcs(connection)
            if is_wanted(vpc.status, vpc.transition) and vpc.project_id is not None
        }
        vpc_specs = [vpc_spec(connection, vpc_id) for vpc_id in sorted(routers)]
        subnet_specs = [subnet_spec(connection, subnet.id) for subnet in segments]
    refused: list[str] = []
    for router in filter(None, vpc_specs):
        _ensure(router.vpc_id, partial(driver.ensure_vpc, router), refused)
    for segment in filter(None, subnet_specs):
        _ensure(segment.subnet_id, partial(driver.ensure_subnet, segment), refused)
    for instance in hosted if with_ports else ():
        for nic in instance.nics:
            if at_rest_only and (instance.transition or nic.transition) is not None:
                continue
            _ensure(nic.id, partial(driver.ensure_port, port_spec(nic, hostname=instance.hostname)), refused)
    return refused


def _ensure(resource_id: str, ensure: Callable[[], Any], refused: list[str]) -> None:
    try:
        ensure()
    except DriverError as error:
        refused.append(resource_id)
        log.error("network_not_rebuilt", resource_id=resource_id, reason=str(error))
