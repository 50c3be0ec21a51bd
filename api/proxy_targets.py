"""Whom a CONNECT request means: ``<instance>:<port>``, or ``<address>.<vpc>.vpc:<port>`` for any address of a VPC."""

from __future__ import annotations

import re
from dataclasses import dataclass

from iaas.cloud import Cloud
from iaas.kernel.errors import InvalidState, MalformedRequest
from iaas.resources.common import Principal
from iaas.resources.instances import InstanceStatus
from iaas.resources.networks import NetworkStatus

_IN_VPC = re.compile(r"(?P<address>[0-9]{1,3}(?:\.[0-9]{1,3}){3})\.(?P<vpc>.+)\.vpc\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to dial: an address in a VPC."""

    vpc_id: str
    address: str
    port: int


def split_authority(authority: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        MalformedRequest: it is nothing of the kind.
    """
    name, _, port = authority.rpartition(":")
    if not name or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise MalformedRequest("the target must be <instance id or name>:<port>, or <address>.<vpc>.vpc:<port>")
    return name, int(port)


def find_target(cloud: Cloud, principal: Principal, host: str, port: int) -> Target:
    """Return the address that ``host`` means. A VPC's address wins over an instance that has such a name.

    Raises:
        NotFound: the project has no such instance or VPC.
        InvalidState: it cannot be reached as it is now.
    """
    if (match := _IN_VPC.match(host)) is not None:
        vpc = cloud.vpcs.get(principal, match["vpc"])
        if vpc.status != NetworkStatus.ACTIVE:
            raise InvalidState(f"VPC {vpc.id} is {vpc.status}, not active")
        return Target(vpc_id=vpc.id, address=match["address"], port=port)
    instance = cloud.instances.get(principal, host)
    if instance.status != InstanceStatus.RUNNING:
        raise InvalidState(f"instance {instance.id} is {instance.status}, not running")
    for nic in instance.nics:
        if nic.address is not None and nic.vpc_id is not None:
            cloud.instances.refuse_when_host_is_down(instance)
            return Target(vpc_id=nic.vpc_id, address=nic.address, port=port)
    raise InvalidState(f"instance {instance.id} has no address")
