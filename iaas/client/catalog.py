"""What a cloud offers: images, flavors, zones, hosts; and the key pairs a project brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from iaas.client.collection import Collection
from iaas.client.resource import STRINGS, UNSET, Resource, Unset, read_failure, reads
from iaas.kernel.errors import Failure

if TYPE_CHECKING:
    from iaas.client.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Resource):
    """What instances boot. ``kinds`` are those it has an artefact for (``vm``, ``container``)."""

    path: ClassVar[str] = "/v1/images"
    key: ClassVar[str] = "image"

    project_id: str | None = None
    status: str = ""
    transition: str | None = None
    failure: Failure | None = field(default=None, metadata=reads(read_failure))
    source: str = ""
    kinds: tuple[str, ...] = field(default=(), metadata=STRINGS)
    os: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor(Resource):
    """A named shape."""

    path: ClassVar[str] = "/v1/flavors"
    key: ClassVar[str] = "flavor"

    vcpus: int = 0
    memory_mib: int = 0
    root_disk_gib: int = 0
    max_nics: int = 0

    def delete(self) -> None:
        """Remove it; instances made with it keep their shape. Needs the admin role."""
        self._remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone(Resource):
    """A part of the cloud that fails on its own."""

    path: ClassVar[str] = "/v1/zones"
    key: ClassVar[str] = "zone"

    status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host(Resource):
    """A machine that runs instances; shown to admins. ``status`` is ``up``, ``draining`` or ``down``."""

    path: ClassVar[str] = "/v1/hosts"
    key: ClassVar[str] = "host"

    zone: str | None = None
    status: str = ""
    vcpus: int = 0
    vcpus_used: int = 0
    memory_mib: int = 0
    memory_mib_used: int = 0
    disk_gib: int = 0
    disk_gib_used: int = 0
    vcpu_overcommit: float = 1.0
    memory_overcommit: float = 1.0
    disk_overcommit: float = 1.0

    def update(self, *, status: str | Unset = UNSET, labels: Mapping[str, str | None] | Unset = UNSET) -> Host:
        """Return it in another ``status`` (up, draining, down), or with ``labels`` merged in. Needs the admin role."""
        return self._patch({"status": status, "labels": labels})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair(Resource):
    """An SSH key that guests let in. ``private_key`` is there once: when the server has just made it."""

    path: ClassVar[str] = "/v1/key_pairs"
    key: ClassVar[str] = "key_pair"

    project_id: str | None = None
    public_key: str = ""
    fingerprint: str = ""
    private_key: str | None = field(default=None, repr=False)

    def update(self, *, name: str | Unset = UNSET, labels: Mapping[str, str | None] | Unset = UNSET) -> KeyPair:
        """Return it with another name, or with ``labels`` merged in (a None value removes that label)."""
        return self._patch({"name": name, "labels": labels})

    def delete(self) -> None:
        """Remove it; guests that know it already are not changed."""
        self._remove()


class Zones(Collection[Zone]):
    """``client.zones``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, Zone)

    def find(self, name: str) -> Zone | None:
        """Return the zone with exactly this name, None when there is none."""
        # They are few, and the server has no filter for them.
        return next((each for each in self.iterate() if each.name == name), None)


class Flavors(Collection[Flavor]):
    """``client.flavors``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, Flavor)

    def create(
        self,
        *,
        name: str,
        vcpus: int,
        memory_mib: int,
        root_disk_gib: int,
        max_nics: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Flavor:
        """Return a new flavor. Needs the admin role."""
        return self._create(
            name=name,
            vcpus=vcpus,
            memory_mib=memory_mib,
            root_disk_gib=root_disk_gib,
            max_nics=max_nics,
            labels=labels,
        )


class KeyPairs(Collection[KeyPair]):
    """``client.key_pairs``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, KeyPair)

    def create(self, *, name: str, public_key: str | None = None, labels: Mapping[str, str] | None = None) -> KeyPair:
        """Return a new key pair: of ``public_key`` (one OpenSSH line), or made by the server, with ``private_key``."""
        return self._create(name=name, public_key=public_key, labels=labels)
