"""``iaas image | flavor | zone | host``."""

from __future__ import annotations

from typing import Annotated

import typer

from iaas.cli.nouns import (
    LabelOption,
    NameArgument,
    Noun,
    RemoveLabelOption,
    add_delete,
    add_get,
    add_list,
    changed_labels,
    parse_labels,
    show,
)
from iaas.cli.output import Column
from iaas.cli.session import Session, command
from iaas.client import UNSET, Flavor, Host, Image, Zone

IMAGE = Noun[Image](
    word="image",
    collection=lambda client: client.images,
    columns=(
        Column("ID", lambda image: image.id),
        Column("NAME", lambda image: image.name),
        Column("STATUS", lambda image: image.status),
        Column("KINDS", lambda image: image.kinds),
        Column("OS", lambda image: image.os),
        Column("SOURCE", lambda image: image.source),
    ),
    filters=("name", "status", "label", "sort"),
)
FLAVOR = Noun[Flavor](
    word="flavor",
    collection=lambda client: client.flavors,
    columns=(
        Column("ID", lambda flavor: flavor.id),
        Column("NAME", lambda flavor: flavor.name),
        Column("VCPUS", lambda flavor: flavor.vcpus),
        Column("MEMORY MIB", lambda flavor: flavor.memory_mib),
        Column("ROOT DISK GIB", lambda flavor: flavor.root_disk_gib),
    ),
)
ZONE = Noun[Zone](
    word="zone",
    collection=lambda client: client.zones,
    columns=(
        Column("ID", lambda zone: zone.id),
        Column("NAME", lambda zone: zone.name),
        Column("STATUS", lambda zone: zone.status),
    ),
    filters=("sort",),
)
HOST = Noun[Host](
    word="host",
    collection=lambda client: client.hosts,
    columns=(
        Column("ID", lambda host: host.id),
        Column("NAME", lambda host: host.name),
        Column("ZONE", lambda host: host.zone),
        Column("STATUS", lambda host: host.status),
        Column("VCPUS", lambda host: f"{host.vcpus_used}/{host.vcpus}"),
        Column("MEMORY MIB", lambda host: f"{host.memory_mib_used}/{host.memory_mib}"),
        Column("DISK GIB", lambda host: f"{host.disk_gib_used}/{host.disk_gib}"),
    ),
    filters=("name", "status", "zone", "sort"),
)


def add_image(app: typer.Typer) -> None:
    """Add the verbs of images."""
    add_list(app, IMAGE)
    add_get(app, IMAGE)


def add_zone(app: typer.Typer) -> None:
    """Add the verbs of zones."""
    add_list(app, ZONE)
    add_get(app, ZONE)


def add_host(app: typer.Typer) -> None:
    """Add the verbs of hosts."""
    add_list(app, HOST)
    add_get(app, HOST)

    @command(app, "update")
    def update(
        session: Session,
        name: NameArgument,
        status: Annotated[str | None, typer.Option(help="up, draining (no new machines) or down.")] = None,
        label: LabelOption = None,
        remove_label: RemoveLabelOption = None,
    ) -> None:
        """Change a host's status or labels (admin)."""
        labels = changed_labels(label, remove_label)
        if status is None and not labels:
            raise typer.BadParameter("nothing to change: give --status, --label or --remove-label")
        with session.client() as client:
            host = client.hosts.get(name)
            show(session, host.update(status=UNSET if status is None else status, labels=labels or UNSET))


def add_flavor(app: typer.Typer) -> None:
    """Add the verbs of flavors."""
    add_list(app, FLAVOR)
    add_get(app, FLAVOR)
    add_delete(app, FLAVOR, help_text="Remove flavors (admin). Instances made with them keep their shape.")

    @command(app, "create")
    def create(
        session: Session,
        name: Annotated[str, typer.Argument(metavar="NAME")],
        vcpus: Annotated[int, typer.Option()],
        memory_mib: Annotated[int, typer.Option()],
        root_disk_gib: Annotated[int, typer.Option()],
        max_nics: Annotated[int | None, typer.Option(help="How many NICs an instance may have (8).")] = None,
        label: LabelOption = None,
    ) -> None:
        """Make a flavor (admin)."""
        with session.client() as client:
            flavor = client.flavors.create(
                name=name,
                vcpus=vcpus,
                memory_mib=memory_mib,
                root_disk_gib=root_disk_gib,
                max_nics=max_nics,
                labels=parse_labels(label) or None,
            )
        show(session, flavor)
