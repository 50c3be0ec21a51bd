"""Address reservations: addresses of a subnet that no NIC gets, for virtual IPs and pods."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import Connection

from iaas.db.models import AddressReservationRow
from iaas.db.postgres import lock_row
from iaas.db.repositories import events, quotas, reservations, shared, subnets
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import AlreadyExists, FieldError, NotFound, OutOfCapacity, ResourceRef
from iaas.kernel.ids import ID_PATTERN, IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.common import Principal, Role
from iaas.resources.jobs import Job
from iaas.resources.networks import AddressReservation, Subnet
from iaas.services.access import require
from iaas.services.cidrs import check_host, invalid
from iaas.services.filters import by_id
from iaas.services.labelling import patched_labels
from iaas.services.network_changes import changed_subnet, claim_name, not_found, rename
from iaas.services.nic_wishes import find_subnet
from iaas.services.quotas import Quotas

MAX_ADDRESSES = 1024  # of one reservation
_TYPE = "address_reservation"
_TRIES = 4
_HOLDERS = {
    id_prefixes.NIC: "a NIC",
    id_prefixes.ADDRESS_RESERVATION: "an address reservation",
    id_prefixes.SUBNET: "the gateway",
}


class ReservationService:
    def __init__(self, store: Store, ids: IdSource, add_job: Callable[..., Job], quotas: Quotas) -> None:
        self._store = store
        self._ids = ids
        self._add_job = add_job
        self._quotas = quotas

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, principal: Principal, id_or_name: str) -> AddressReservation:
        with self._store.read() as connection:
            return _find(connection, principal, id_or_name)

    def list_page(self, principal: Principal, listing: Listing) -> tuple[list[AddressReservation], str | None]:
        with self._store.read() as connection:
            return reservations.list_page(
                connection, by_id(connection, principal, listing), project_id=principal.project_id
            )

    # -- changing -----------------------------------------------------------------------------------------

    def create(
        self,
        principal: Principal,
        *,
        subnet: str,
        name: str | None = None,
        address: str | None = None,
        first: str | None = None,
        last: str | None = None,
        count: int | None = None,
        labels: dict[str, str] | None = None,
    ) -> tuple[AddressReservation, Job]:
        """Reserve one given address, a given range, or ``count`` free ones in a row (one when nothing is given).

        Free ones are looked for from the end of the block, as far from those of NICs as may be.

        Raises:
            InvalidInput: names each wrong field; the subnet is in no VPC.
            AlreadyExists: an address, or the name, is taken; the message names the first such address.
            OutOfCapacity: there are not as many free ones in a row.
            QuotaExceeded: the project may have no more.
            InTransition, InvalidState: the subnet is not active.
        """
        require(principal, Role.MEMBER)
        check_labels(labels or {})
        _check_form(address=address, first=first, last=last, count=count)
        with self._store.read() as connection:
            found = find_subnet(connection, principal.project_id, subnet, zone=None)
        if found is None:
            raise invalid("subnet", "not_found", f"there is no subnet {subnet}")

        def work(tx: Tx) -> tuple[AddressReservation, Job]:
            reservation_id = self._ids.new(id_prefixes.ADDRESS_RESERVATION)
            with changed_subnet(tx, found.id, "reserving addresses") as current:
                if current.cidr is None:
                    raise invalid("subnet", "no_vpc", "a subnet in no VPC has no addresses")
                given = _given(IPv4Network(current.cidr), address, first, last)
                size = given[1] - given[0] + 1 if given is not None else count or 1
                self._quotas.take(tx, principal.project_id, {"reserved_addresses": size})
                if given is not None:
                    _claim_given(tx, current, reservation_id, given, "address" if address is not None else "first")
                else:
                    given = _claim_free(tx, current, reservation_id, size)
                claim_name(tx, _TYPE, principal.project_id, reservation_id, name or reservation_id)
                reservations.add(
                    tx,
                    id=reservation_id,
                    project_id=principal.project_id,
                    name=name or reservation_id,
                    labels=labels or {},
                    subnet_id=current.id,
                    first=str(IPv4Address(given[0])),
                    last=str(IPv4Address(given[1])),
                )
                shared.add_labels(tx, reservation_id, labels or {})
            job = self._apply(tx, principal, current.id)
            _tell(tx, principal, reservation_id, "created", job_id=job.id)
            return _find(tx.connection, principal, reservation_id), job

        return self._store.write(work)

    def update(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
    ) -> AddressReservation:
        """Change name and labels (a merge patch: null removes one)."""
        require(principal, Role.MEMBER)
        found = self.get(principal, id_or_name)
        check_labels({key: value for key, value in (labels or {}).items() if value is not None})

        def work(tx: Tx) -> AddressReservation:
            lock_row(tx.connection, AddressReservationRow.__table__, found.id)
            current = _find(tx.connection, principal, found.id)
            changed_name = {}
            if name is not None and name != current.name:
                rename(tx, _TYPE, principal.project_id, found.id, name)
                changed_name = {"name": name}
            changed_labels = patched_labels(tx, AddressReservationRow.__table__, found.id, labels)
            reservations.update(tx, found.id, **changed_name, **changed_labels)
            _tell(tx, principal, found.id, "updated")
            return _find(tx.connection, principal, found.id)

        return self._store.write(work)

    def delete(self, principal: Principal, id_or_name: str) -> Job:
        """Give the addresses back. Whoever speaks for one of them is not heard any more.

        Raises:
            InTransition, InvalidState: the subnet is not active.
        """
        require(principal, Role.MEMBER)
        found = self.get(principal, id_or_name)

        def work(tx: Tx) -> Job:
            with changed_subnet(tx, found.subnet_id, "giving addresses back"):
                if not reservations.delete(tx, found.id):  # not twice when two do it at once
                    raise _not_found(id_or_name)
                shared.release_all(tx, found.id)
                shared.set_labels(tx, found.id, {})
                quotas.give(tx, principal.project_id, {"reserved_addresses": _size(found)})
            job = self._apply(tx, principal, found.subnet_id)
            _tell(tx, principal, found.id, "deleted", job_id=job.id)
            return job

        return self._store.write(work)

    def _apply(self, tx: Tx, principal: Principal, subnet_id: str) -> Job:
        return self._add_job(
            tx,
            action="subnet.apply",
            resource=ResourceRef("subnet", subnet_id),
            project_id=principal.project_id,
            request_id=principal.request_id,
        )


def _find(connection: Connection, principal: Principal, id_or_name: str) -> AddressReservation:
    found = None
    if ID_PATTERN.match(id_or_name):
        found = reservations.get(connection, id_or_name, project_id=principal.project_id)
    if found is None:
        found = reservations.find_by_name(connection, id_or_name, project_id=principal.project_id)
    if found is None:
        raise _not_found(id_or_name)
    return found


def _check_form(*, address: str | None, first: str | None, last: str | None, count: int | None) -> None:
    """Return when what is asked for is one thing: an address, a range, or a number."""
    given = [name for name, value in (("address", address), ("first", first), ("count", count)) if value is not None]
    if len(given) > 1:
        raise invalid(given[1], "excluded", f"{given[0]} is given: ask for an address, a range or a number")
    if last is not None and first is None:
        raise invalid("first", "required", "a range needs its first address, too")
    if first is not None and last is None:
        raise invalid("last", "required", "a range needs its last address, too")
    if count is not None and not 1 <= count <= MAX_ADDRESSES:
        raise invalid("count", "out_of_range", f"must be from 1 to {MAX_ADDRESSES}")


def _given(block: IPv4Network, address: str | None, first: str | None, last: str | None) -> tuple[int, int] | None:
    """Return the range that is asked for, as numbers; None when any will do. Raises InvalidInput."""
    if address is not None:
        number = int(check_host(address, block, "address"))
        return number, number
    if first is None or last is None:
        return None
    begin, end = int(check_host(first, block, "first")), int(check_host(last, block, "last"))
    if end < begin:
        raise invalid("last", "out_of_range", f"{last} comes before {first}")
    if end - begin >= MAX_ADDRESSES:
        raise invalid("last", "too_many", f"at most {MAX_ADDRESSES} addresses")
    return begin, end


def _claim_given(tx: Tx, subnet: Subnet, reservation_id: str, given: tuple[int, int], field: str) -> None:
    if _claim(tx, subnet, reservation_id, given):
        return
    holders = shared.holders_in(tx.connection, subnets.address_scope(subnet.id))
    for number in range(given[0], given[1] + 1):
        address = str(IPv4Address(number))
        holder = holders.get(address)
        if holder is not None and holder != reservation_id:
            # Only what it is: on a subnet that all share it may be another project's.
            what = _HOLDERS.get(holder.partition("-")[0], "something else")
            message = f"address {address} is taken in this subnet, by {what}"
            raise AlreadyExists(message, errors=[FieldError(field, "taken", message)])
    raise AlreadyExists("an address was taken meanwhile", errors=[FieldError(field, "taken", "was taken meanwhile")])


def _claim_free(tx: Tx, subnet: Subnet, reservation_id: str, size: int) -> tuple[int, int]:
    for _ in range(_TRIES):
        found = _free_run(tx.connection, subnet, size)
        if found is None:
            break
        if _claim(tx, subnet, reservation_id, found):
            return found
        # A NIC got one of them since we looked; whoever asks for a given address does not hold the subnet.
        shared.release(tx, scope=subnets.address_scope(subnet.id), resource_id=reservation_id)
    message = f"subnet {subnet.id} has no {size} free addresses in a row"
    raise OutOfCapacity(message, errors=[FieldError("count", "out_of_capacity", message)])


def _claim(tx: Tx, subnet: Subnet, reservation_id: str, given: tuple[int, int]) -> bool:
    wanted = [(str(IPv4Address(number)), reservation_id) for number in range(given[0], given[1] + 1)]
    return shared.claim_all(tx, scope=subnets.address_scope(subnet.id), wanted=wanted)


def _free_run(connection: Connection, subnet: Subnet, size: int) -> tuple[int, int] | None:
    """Return the last free run of hosts in the subnet's block."""
    block = IPv4Network(subnet.cidr or "")
    taken = {int(IPv4Address(value)) for value in shared.holders_in(connection, subnets.address_scope(subnet.id))}
    end = int(block.broadcast_address) - 1
    run = 0
    for number in range(end, int(block.network_address), -1):
        run = 0 if number in taken else run + 1
        if run == size:
            return number, number + size - 1
    return None


def _size(reservation: AddressReservation) -> int:
    return int(IPv4Address(reservation.last)) - int(IPv4Address(reservation.first)) + 1


def _not_found(id_or_name: str) -> NotFound:
    return not_found(_TYPE, id_or_name)


def _tell(tx: Tx, principal: Principal, reservation_id: str, what: str, *, job_id: str | None = None) -> None:
    events.add(
        tx,
        type=f"{_TYPE}.{what}",
        project_id=principal.project_id,
        resource=ResourceRef(_TYPE, reservation_id),
        job_id=job_id,
        request_id=principal.request_id,
    )
