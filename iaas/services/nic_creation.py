"""Writing new NICs: their addresses and MACs are claimed, many at once in few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from iaas.db.repositories import nics, shared, subnets
from iaas.db.store import Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import AlreadyExists, FieldError, OutOfCapacity, Unavailable
from iaas.kernel.ids import IdSource
from iaas.resources.networks import NIC, NetworkStatus, NetworkTransition, NICStatus
from iaas.services.nic_wishes import NICPlan, in_use, invalid

_MAC_TRIES = 16


class NICCreation:
    def __init__(self, ids: IdSource) -> None:
        self._ids = ids

    def make(
        self,
        tx: Tx,
        project_id: str,
        plans: Sequence[NICPlan],
        *,
        places: Sequence[tuple[str, int]] | None = None,
    ) -> list[NIC]:
        """Write what was planned and return the NICs in the same order.

        Args:
            places: for each the instance it is made for and the device index there; free NICs when None.

        Raises:
            AlreadyExists: a name, address or MAC is taken.
            OutOfCapacity: a pool has no address left.
            InUse: an existing NIC was taken by another meanwhile.
            InvalidInput: a subnet was moved or deleted meanwhile.
        """
        found: list[NIC | None] = [None] * len(plans)
        new: list[int] = []
        for index, plan in enumerate(plans):
            if plan.existing is not None:
                found[index] = self._take(tx, plan.existing, places[index] if places is not None else None)
            else:
                new.append(index)
        _hold_subnets(tx, [plans[index] for index in new])
        rows = [self._row(project_id, plans[index], places[index] if places is not None else None) for index in new]
        self._claim_addresses(tx, [plans[index] for index in new], rows)
        self._claim_macs(tx, [plans[index] for index in new], rows)
        for row, index in zip(rows, new, strict=True):
            plan = plans[index]
            if plan.name is not None:
                claim_name(tx, project_id, row["id"], plan.name, plan.field_prefix + "name")
            shared.add_labels(tx, row["id"], plan.labels)
        for nic, index in zip(nics.add_all(tx, rows) if rows else [], new, strict=True):
            found[index] = nic
        return [nic for nic in found if nic is not None]

    def _row(self, project_id: str, plan: NICPlan, place: tuple[str, int] | None) -> dict[str, Any]:
        nic_id = self._ids.new(id_prefixes.NIC)
        instance_id, device_index = place if place is not None else (None, None)
        return {
            "id": nic_id,
            "project_id": project_id,
            "name": plan.name or nic_id,
            "labels": plan.labels,
            "zone": plan.subnet.zone,
            "status": NICStatus.AVAILABLE if instance_id is None else NICStatus.IN_USE,
            "subnet_id": plan.subnet.id,
            "vpc_id": plan.subnet.vpc_id,
            "mac": plan.mac,
            "address": plan.address,
            "secondary_addresses": list(plan.secondary_addresses),
            "allowed_pairs": [{"cidr": pair.cidr, "mac": pair.mac} for pair in plan.allowed_pairs],
            "instance_id": instance_id,
            "device_index": device_index,
            "delete_with_instance": instance_id is not None,
        }

    def _take(self, tx: Tx, nic: NIC, place: tuple[str, int] | None) -> NIC:
        assert place is not None  # noqa: S101 - an existing NIC is only wished for with an instance
        free = {"status": NICStatus.AVAILABLE, "transition": None, "instance_id": None}
        changes = {"instance_id": place[0], "device_index": place[1], "status": NICStatus.IN_USE}
        if not nics.change(tx, nic.id, expect=free, **changes):
            raise in_use(nics.get(tx.connection, nic.id) or nic)
        taken = nics.get(tx.connection, nic.id)
        assert taken is not None  # noqa: S101 - changed one line above, in this transaction
        return taken

    def _claim_addresses(self, tx: Tx, plans: Sequence[NICPlan], rows: Sequence[dict[str, Any]]) -> None:
        # Those that were asked for by name first, so that no pool gives one of them away.
        for plan, row in zip(plans, rows, strict=True):
            given = [] if plan.address is None else [(plan.address, plan.field_prefix + "address")]
            given += [
                (address, f"{plan.field_prefix}secondary_addresses.{index}")
                for index, address in enumerate(plan.secondary_addresses)
            ]
            for address, field in given:
                claim_address(tx, plan.subnet.id, row["id"], address, field)
        wanting: dict[str, list[tuple[NICPlan, dict[str, Any]]]] = defaultdict(list)
        for plan, row in zip(plans, rows, strict=True):
            if plan.address is None and plan.wants_address:
                wanting[plan.subnet.id].append((plan, row))
        for subnet_id in sorted(wanting):  # in one order, so that no two wait for each other
            wishing = wanting[subnet_id]
            subnet = wishing[0][0].subnet
            addresses = subnets.claim_addresses(tx, subnet, [row["id"] for _, row in wishing])
            if addresses is None:
                raise OutOfCapacity(f"subnet {subnet.name} ({subnet.id}) has no free address")
            for (_, row), address in zip(wishing, addresses, strict=True):
                row["address"] = address

    def _claim_macs(self, tx: Tx, plans: Sequence[NICPlan], rows: Sequence[dict[str, Any]]) -> None:
        by_zone: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for plan, row in zip(plans, rows, strict=True):
            if plan.mac is None:
                by_zone[plan.subnet.zone].append(row)
            elif not shared.claim(tx, scope=mac_scope(plan.subnet.zone), value=plan.mac, resource_id=row["id"]):
                raise taken(plan.field_prefix + "mac", f"MAC {plan.mac} is taken in {plan.subnet.zone}")
        for zone in sorted(by_zone):
            self._claim_new_macs(tx, zone, by_zone[zone])

    def _claim_new_macs(self, tx: Tx, zone: str, rows: Sequence[dict[str, Any]]) -> None:
        scope = mac_scope(zone)
        for _ in range(_MAC_TRIES):
            macs = [self._ids.mac() for _ in rows]
            wanted = [(mac, row["id"]) for mac, row in zip(macs, rows, strict=True)]
            if shared.claim_all(tx, scope=scope, wanted=wanted):
                for mac, row in zip(macs, rows, strict=True):
                    row["mac"] = mac
                return
            for row in rows:
                shared.release(tx, scope=scope, resource_id=row["id"])
        raise Unavailable("no free MAC address was found")


def _hold_subnets(tx: Tx, plans: Sequence[NICPlan]) -> None:
    """Return when the subnets are still as they were planned with; they stay so until the commit.

    Those that all projects share never change their place, so nobody need wait for anybody there.
    """
    own = {plan.subnet.id: plan for plan in plans if not plan.subnet.is_shared}
    for subnet_id in sorted(own):  # in one order, so that no two wait for each other
        planned = own[subnet_id].subnet
        subnets.lock(tx, subnet_id)
        current = subnets.get(tx.connection, subnet_id)
        if (
            current is None
            or current.status != NetworkStatus.ACTIVE
            or current.transition == NetworkTransition.DELETING
            or (current.vpc_id, current.cidr) != (planned.vpc_id, planned.cidr)
        ):
            message = f"subnet {subnet_id} was changed meanwhile: look at it and try again"
            raise invalid(own[subnet_id].field_prefix + "subnet", "changed", message)


def mac_scope(zone: str) -> str:
    return f"mac:{zone}"


def claim_address(tx: Tx, subnet_id: str, nic_id: str, address: str, field: str) -> None:
    """Claim a given address for a NIC, or raise AlreadyExists that names the field and who has it."""
    scope = subnets.address_scope(subnet_id)
    if not shared.claim(tx, scope=scope, value=address, resource_id=nic_id):
        raise taken(field, f"address {address} is taken in this subnet")


def claim_name(tx: Tx, project_id: str, nic_id: str, name: str, field: str = "name") -> None:
    """Claim a name for a NIC, or raise AlreadyExists."""
    if not shared.claim(tx, scope=f"name:nic:{project_id}", value=name, resource_id=nic_id):
        raise taken(field, f"there is a NIC named {name} in this project already")


def taken(field: str, message: str) -> AlreadyExists:
    return AlreadyExists(message, errors=[FieldError(field, "taken", message)])
