"""What a cloud has before anybody asks: zones, networks, hosts, flavors, the built-in image, a first project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iaas.config import CloudConfig
from iaas.db.postgres import take_lock
from iaas.db.repositories import catalog, identity, shared
from iaas.db.store import Store, Tx
from iaas.drivers.interface import Backend, MachineKind
from iaas.kernel import ids as id_prefixes
from iaas.kernel.ids import IdSource
from iaas.resources.catalog import Host, HostStatus
from iaas.resources.common import Role
from iaas.services.basic_networks import ensure_basic_network
from iaas.services.catalog import add_flavor
from iaas.services.identity import add_project, add_token
from iaas.services.quotas import add_missing
from iaas.services.secret_key import check_secret_key, note_secret_key, take_empty_key
from iaas.services.telling import tell_of_host
from iaas.services.vault import Cipher, new_secret, new_token, token_hash

DEFAULT_PROJECT = "default"
SECRET_KEY = "secret.key"  # noqa: S105 - the name of a file

FLAVORS: tuple[tuple[str, int, int, int, int], ...] = (
    # name, vcpus, memory_mib, root_disk_gib, max_nics
    ("nano", 1, 128, 1, 4),
    ("micro", 1, 512, 4, 4),
    ("small", 1, 1024, 10, 8),
    ("medium", 2, 4096, 20, 16),
    ("large", 4, 8192, 40, 24),
    ("xlarge", 8, 16384, 80, 24),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCredentials:
    """The operator's credentials, in clear; given by the environment, or made at the first start."""

    api_token: str
    access_key_id: str
    secret_access_key: str


def prepare(
    store: Store,
    ids: IdSource,
    backend: Backend,
    config: CloudConfig,
    vault: Cipher,
    given: FirstCredentials | None = None,
) -> FirstCredentials | None:
    """Bring an empty cloud to its first state and the hosts up to what the backend reports now.

    Args:
        given: the operator's credentials from the environment; they are valid after every start.

    Returns:
        The operator's credentials when they were given or made here, None when they exist since an earlier start.

    Raises:
        Unavailable: the key of the secrets is not the one that the database knows (code ``secret_key_lost``).
    """
    key_path = config.state_dir / SECRET_KEY if config.state_dir else None
    begin_anew = take_empty_key(key_path)

    def work(tx: Tx) -> FirstCredentials | None:
        take_lock(tx.connection, "first state")  # the processes of a fleet start side by side
        check_secret_key(tx, key_path, begin_anew=begin_anew)
        found = first_state(tx)
        note_secret_key(tx, key_path)
        return found

    def first_state(tx: Tx) -> FirstCredentials | None:
        for index, zone in enumerate(config.zones):
            _ensure_zone(tx, ids, zone, index)
        _sync_hosts(tx, ids, backend)
        add_missing(tx)
        project = identity.get_project(tx.connection, DEFAULT_PROJECT)
        if project is not None:
            if given is None and not begin_anew:
                return None
            credentials = given or new_credentials(ids)
            _ensure_credentials(tx, ids, project.id, credentials, vault)
            return credentials
        _add_catalog(tx, ids)
        project_id = ids.new(id_prefixes.PROJECT)
        add_project(tx, project_id, name=DEFAULT_PROJECT, description="made at the first start", labels={})
        credentials = given or new_credentials(ids)
        _ensure_credentials(tx, ids, project_id, credentials, vault)
        return credentials

    return store.write(work)


def new_credentials(ids: IdSource) -> FirstCredentials:
    """Return fresh random credentials; nothing is written."""
    return FirstCredentials(
        api_token=new_token(), access_key_id=ids.new(id_prefixes.ACCESS_KEY), secret_access_key=new_secret()
    )


def renew_credentials(store: Store, ids: IdSource, vault: Cipher) -> FirstCredentials:
    """Make new operator's credentials, for a server whose credentials file was lost."""
    credentials = new_credentials(ids)

    def work(tx: Tx) -> None:
        project = identity.get_project(tx.connection, DEFAULT_PROJECT)
        if project is None:
            raise LookupError("the cloud has no default project")
        _ensure_credentials(tx, ids, project.id, credentials, vault)

    store.write(work)
    return credentials


def _ensure_credentials(tx: Tx, ids: IdSource, project_id: str, credentials: FirstCredentials, vault: Cipher) -> None:
    if identity.token_by_hash(tx.connection, token_hash(credentials.api_token)) is None:
        add_token(
            tx,
            ids.new(id_prefixes.API_TOKEN),
            project_id,
            name="operator",
            role=Role.ADMIN,
            token=credentials.api_token,
        )
    secret = identity.encrypted_secret(tx.connection, credentials.access_key_id)
    if secret is not None and vault.decrypt(secret) != credentials.secret_access_key:
        identity.delete_access_key(tx, credentials.access_key_id)
        secret = None
    if secret is None:
        identity.add_access_key(
            tx,
            id=credentials.access_key_id,
            project_id=project_id,
            name="operator",
            labels={},
            role=Role.ADMIN,
            secret_encrypted=vault.encrypt(credentials.secret_access_key),
        )


def _add_catalog(tx: Tx, ids: IdSource) -> None:
    for name, vcpus, memory_mib, root_disk_gib, max_nics in FLAVORS:
        add_flavor(
            tx,
            ids.new(id_prefixes.FLAVOR),
            name=name,
            vcpus=vcpus,
            memory_mib=memory_mib,
            root_disk_gib=root_disk_gib,
            max_nics=max_nics,
            labels={},
        )
    image_id = ids.new(id_prefixes.IMAGE)
    shared.claim(tx, scope="name:image", value="tiny", resource_id=image_id)
    catalog.add_image(
        tx,
        id=image_id,
        name="tiny",
        labels={},
        status="available",
        source="builtin:tiny",
        kinds=[MachineKind.VM, MachineKind.CONTAINER],
        os="busybox",
    )


def deployment_tag(store: Store, ids: IdSource, wanted: str | None = None) -> str:
    """Return the four characters that all real objects of this cloud carry; chosen once, kept for ever."""
    with store.read() as connection:
        tag = shared.get_setting(connection, "deployment_tag")
    if tag is not None:
        return tag
    fresh = wanted or id_prefixes.suffix(ids.new("tag"))[:4]

    def work(tx: Tx) -> str:
        take_lock(tx.connection, "first state")
        known = shared.get_setting(tx.connection, "deployment_tag")
        if known is None:
            shared.put_setting(tx, "deployment_tag", fresh)
        return known or fresh

    return store.write(work)


def _ensure_zone(tx: Tx, ids: IdSource, zone: str, index: int) -> None:
    if catalog.get_zone(tx.connection, zone) is None:
        catalog.add_zone(tx, zone)
    ensure_basic_network(tx, ids, zone, index)


def _sync_hosts(tx: Tx, ids: IdSource, backend: Backend) -> None:
    """Bring the hosts' rows up to what is reported now; what an admin said of a host outlives the restart."""
    known = {host.name: host for host in catalog.all_hosts(tx.connection)}
    for report in backend.hosts:
        shape = {
            "zone": report.zone,
            "vcpus": int(report.vcpus * report.vcpu_overcommit),
            "memory_mib": int(report.memory_mib * report.memory_overcommit),
            "disk_gib": int(report.disk_gib * report.disk_overcommit),
            "vcpu_overcommit": report.vcpu_overcommit,
            "memory_overcommit": report.memory_overcommit,
            "disk_overcommit": report.disk_overcommit,
        }
        host = known.pop(report.name, None)
        if host is None:
            host_id = ids.new(id_prefixes.HOST)
            catalog.add_host(
                tx, id=host_id, name=report.name, status=HostStatus.UP, wanted_status=HostStatus.UP, **shape
            )
        else:
            _set_status(tx, host, host.wanted_status, reason="reported", **shape)
    for host in known.values():
        _set_status(tx, host, HostStatus.DOWN, reason="not_reported")


def _set_status(tx: Tx, host: Host, status: str, *, reason: str, **changes: Any) -> None:
    catalog.update_host(tx, host.name, status=status, **changes)
    if host.status != status:
        tell_of_host(tx, host, status, reason=reason)
