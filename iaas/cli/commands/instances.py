"""``iaas instance``: its life. How to reach what runs in it is in ``instance_access``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from iaas.cli.commands.nics import NICOption, SubnetsOption, wanted_nics
from iaas.cli.exit_status import CommandError
from iaas.cli.nouns import (
    LabelOption,
    NameArgument,
    NamesArgument,
    Noun,
    RemoveLabelOption,
    add_list,
    changed_labels,
    parse_labels,
    show,
)
from iaas.cli.output import Column, text_of, write_json, write_table
from iaas.cli.progress import describe, progress
from iaas.cli.session import Session, command
from iaas.cli.waiting import WaitOption, WaitTimeoutOption
from iaas.client import UNSET, Action, Client, Instance, InstanceSpec, NotFound, Placement, PlacementRule
from iaas.client.jobs import DEFAULT_WAIT_S

DEFAULT_FLAVOR = "micro"


class Kind(StrEnum):
    VM = "vm"
    CONTAINER = "container"


INSTANCE = Noun[Instance](
    word="instance",
    collection=lambda client: client.instances,
    columns=(
        Column("ID", lambda instance: instance.id),
        Column("NAME", lambda instance: instance.name),
        Column("KIND", lambda instance: instance.kind),
        Column("STATUS", lambda instance: _status(instance)),
        Column("FLAVOR", lambda instance: instance.flavor or f"{instance.vcpus} vCPU, {instance.memory_mib} MiB"),
        Column("IMAGE", lambda instance: instance.image or instance.image_id),
        Column("ADDRESS", lambda instance: instance.address),
        Column("READY", lambda instance: instance.guest_ready_at),
    ),
    filters=("name", "kind", "status", "zone", "label", "deleted", "sort"),
)

ReadyOption = Annotated[bool, typer.Option("--ready", help="Wait until the guest answers, too.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Cut the power at once.")]
GraceOption = Annotated[
    int | None,
    typer.Option("--timeout", metavar="SECONDS", help="How long the guest may take until its power is cut (60)."),
]


def add(app: typer.Typer) -> None:
    """Add the verbs of an instance's life."""
    add_list(app, INSTANCE)
    for function in (get, create, start, stop, restart, resize, rebuild, delete, recover, update):
        command(app)(function)


def get(
    session: Session,
    name: NameArgument,
    deleted: Annotated[bool, typer.Option("--deleted", help="Also one (by id) that is deleted.")] = False,
) -> None:
    """Show one instance with all its fields."""
    with session.client() as client:
        show(session, _also_deleted(client, name) if deleted else client.instances.get(name))


def create(
    session: Session,
    kind: Annotated[Kind, typer.Option(help="A virtual machine, or a container machine.")],
    image: Annotated[str, typer.Option(help="Name or id.")],
    flavor: Annotated[
        str | None,
        typer.Option(help=f"Name or id; {DEFAULT_FLAVOR!r} when neither this nor a number is given."),
    ] = None,
    vcpus: Annotated[int | None, typer.Option(help="With --memory-mib, instead of a flavor.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="With --vcpus, instead of a flavor.")] = None,
    root_disk_gib: Annotated[int | None, typer.Option()] = None,
    name: Annotated[str | None, typer.Option()] = None,
    count: Annotated[int, typer.Option(min=1, help="So many, all or none; NAME-1, NAME-2, ...")] = 1,
    hostname: Annotated[str | None, typer.Option()] = None,
    zone: Annotated[str | None, typer.Option()] = None,
    key_pair: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    user_data: Annotated[
        str | None, typer.Option(metavar="FILE", help="For the guest's first boot (- is standard input).")
    ] = None,
    label: LabelOption = None,
    nesting: Annotated[bool, typer.Option("--nesting", help="Containers in this container machine.")] = False,
    privileged: Annotated[bool, typer.Option("--privileged", help="Its root is the host's root.")] = False,
    metadata_labels: Annotated[bool, typer.Option("--metadata-labels", help="Its guest may read its labels.")] = False,
    subnet: SubnetsOption = None,
    nic: NICOption = None,
    no_nic: Annotated[bool, typer.Option("--no-nic", help="Without any network.")] = False,
    affinity: Annotated[
        str | None, typer.Option(metavar="SELECTOR", help="On a host with an instance of these labels: a=b,!c.")
    ] = None,
    anti_affinity: Annotated[
        str | None, typer.Option(metavar="SELECTOR", help="On a host with no instance of these labels.")
    ] = None,
    prefer: Annotated[bool, typer.Option("--prefer", help="These two are wishes, not conditions.")] = False,
    host: Annotated[str | None, typer.Option(help="On this host (admin).")] = None,
    wait: WaitOption = False,
    ready: ReadyOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Create and start an instance.

    iaas instance create --kind vm --image tiny --name web-1 --subnet web

    iaas instance create --kind vm --image tiny --nic subnet=web,address=10.0.1.10 --nic subnet=db
    """
    if flavor is None and vcpus is None and memory_mib is None:
        flavor = DEFAULT_FLAVOR
    spec = InstanceSpec(
        kind=kind,
        image=image,
        flavor=flavor,
        vcpus=vcpus,
        memory_mib=memory_mib,
        root_disk_gib=root_disk_gib,
        name=name,
        hostname=hostname,
        zone=zone,
        key_pairs=key_pair or (),
        user_data=_read_user_data(user_data),
        labels=parse_labels(label),
        nesting=nesting or None,
        privileged=privileged or None,
        metadata_labels=metadata_labels or None,
        nics=wanted_nics(subnet, nic, none=no_nic),
        placement=_placement(affinity, anti_affinity, host, strict=not prefer),
    )
    with session.client() as client:
        if count == 1:
            actions = [client.instances.create_from(spec)]
        else:
            specs = [replace(spec, name=f"{name}-{i}" if name else None) for i in range(1, count + 1)]
            actions = client.instances.create_many(specs)
        _finish(session, actions, wait=wait, ready=ready, wait_timeout_s=wait_timeout, is_batch=count > 1)


def start(
    session: Session,
    names: NamesArgument,
    wait: WaitOption = False,
    ready: ReadyOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Start stopped instances."""
    with session.client() as client:
        actions = _act(client, names, lambda instance: instance.start())
        _finish(session, actions, wait=wait, ready=ready, wait_timeout_s=wait_timeout, is_batch=len(names) > 1)


def stop(
    session: Session,
    names: NamesArgument,
    force: ForceOption = False,
    timeout_s: GraceOption = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Stop instances: ask the guest, then cut the power."""
    with session.client() as client:
        actions = _act(client, names, lambda instance: instance.stop(force=force, timeout_s=timeout_s))
        _finish(session, actions, wait=wait, wait_timeout_s=wait_timeout, is_batch=len(names) > 1)


def restart(
    session: Session,
    names: NamesArgument,
    force: ForceOption = False,
    timeout_s: GraceOption = None,
    wait: WaitOption = False,
    ready: ReadyOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Stop and start instances."""
    with session.client() as client:
        actions = _act(client, names, lambda instance: instance.restart(force=force, timeout_s=timeout_s))
        _finish(session, actions, wait=wait, ready=ready, wait_timeout_s=wait_timeout, is_batch=len(names) > 1)


def resize(
    session: Session,
    name: NameArgument,
    flavor: Annotated[str | None, typer.Option(help="Name or id.")] = None,
    vcpus: Annotated[int | None, typer.Option(help="With --memory-mib, instead of a flavor.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="With --vcpus, instead of a flavor.")] = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Give a stopped instance another shape."""
    with session.client() as client:
        action = client.instances.get(name).resize(flavor=flavor, vcpus=vcpus, memory_mib=memory_mib)
        _finish(session, [action], wait=wait, wait_timeout_s=wait_timeout)


def rebuild(
    session: Session,
    name: NameArgument,
    image: Annotated[str | None, typer.Option(help="Name or id; the present one when absent.")] = None,
    wait: WaitOption = False,
    ready: ReadyOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Give an instance a fresh root disk. What was on the old one is lost; id and addresses stay."""
    with session.client() as client:
        action = client.instances.get(name).rebuild(image=image)
        _finish(session, [action], wait=wait, ready=ready, wait_timeout_s=wait_timeout)


def delete(
    session: Session,
    names: NamesArgument,
    purge: Annotated[
        bool, typer.Option("--purge", help="For good; also one (by id) that is deleted and still retained.")
    ] = False,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Remove instances. They can be recovered for as long as the server retains them."""
    with session.client() as client:
        get = client.instances.get
        found = [_also_deleted(client, name) if purge else get(name) for name in names]
        actions = [instance.delete(purge=purge) for instance in found]
        _finish(session, actions, wait=wait, wait_timeout_s=wait_timeout, is_batch=len(names) > 1)


def recover(
    session: Session,
    instance_id: Annotated[str, typer.Argument(metavar="ID", help="As 'list --deleted' shows it.")],
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name, if the old one is taken.")] = None,
    wait: WaitOption = False,
    wait_timeout: WaitTimeoutOption = DEFAULT_WAIT_S,
) -> None:
    """Bring a deleted instance back, stopped."""
    with session.client() as client:
        action = client.instances.get_deleted(instance_id).recover(name=new_name)
        _finish(session, [action], wait=wait, wait_timeout_s=wait_timeout)


def update(
    session: Session,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
) -> None:
    """Rename an instance, or change its labels."""
    labels = changed_labels(label, remove_label)
    if new_name is None and not labels:
        raise typer.BadParameter("nothing to change: give --name, --label or --remove-label")
    with session.client() as client:
        instance = client.instances.get(name)
        show(session, instance.update(name=UNSET if new_name is None else new_name, labels=labels or UNSET))


def _act(client: Client, names: Sequence[str], verb: Callable[[Instance], Action[Instance]]) -> list[Action[Instance]]:
    # All are looked up before the first is touched: a misspelt name changes nothing.
    return [verb(instance) for instance in [client.instances.get(name) for name in names]]


def _also_deleted(client: Client, name: str) -> Instance:
    try:
        return client.instances.get(name)
    except NotFound:
        return client.instances.get_deleted(name)


def _placement(affinity: str | None, anti_affinity: str | None, host: str | None, *, strict: bool) -> Placement | None:
    if affinity is None and anti_affinity is None and host is None:
        return None
    return Placement(
        affinity=PlacementRule(labels=affinity, strict=strict) if affinity else None,
        anti_affinity=PlacementRule(labels=anti_affinity, strict=strict) if anti_affinity else None,
        host=host,
    )


def _finish(
    session: Session,
    actions: Sequence[Action[Instance]],
    *,
    wait: bool,
    wait_timeout_s: float,
    ready: bool = False,
    is_batch: bool = False,
) -> None:
    """Wait if asked to, then write the instances; with their jobs for programs, as the API does."""
    if wait or ready:
        actions = [_waited(action, ready=ready, timeout_s=wait_timeout_s) for action in actions]
    if not session.is_json:
        write_table(INSTANCE.columns, [action.resource for action in actions])
        return
    instances: list[Any] = [action.resource.raw for action in actions]
    jobs: list[Any] = [action.job.raw for action in actions]
    write_json({"instances": instances, "jobs": jobs} if is_batch else {"instance": instances[0], "job": jobs[0]})


def _waited(action: Action[Instance], *, ready: bool, timeout_s: float) -> Action[Instance]:
    instance = action.resource
    monotonic = instance.client.transport.monotonic
    deadline = monotonic() + timeout_s
    with progress(instance.name or instance.id) as tell:
        job = action.job.wait(timeout_s=timeout_s, on_progress=lambda job: tell(describe(job)))
        instance = _removed(instance) if action.is_removal else instance.refresh()
        if ready:
            tell("waiting for its guest")
            instance = instance.wait_until_ready(timeout_s=max(0.0, deadline - monotonic()))
    return replace(action, job=job, resource=instance)


def _removed(instance: Instance) -> Instance:
    try:
        return instance.client.instances.get_deleted(instance.id)
    except NotFound:  # forgotten already: what it was is all there is
        return instance


def _status(instance: Instance) -> str:
    if instance.transition:
        return f"{instance.status} ({instance.transition})"
    if instance.purged_at:
        return f"{instance.status} (purged)"
    return f"{instance.status} (until {text_of(instance.purge_at)})" if instance.purge_at else instance.status


def _read_user_data(path: str | None) -> str | bytes | None:
    if path is None:
        return None
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    if not data:
        raise CommandError(f"the user data file {path} is empty")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:  # compressed, say: sent as base64
        return data
