"""Steps that several workflows share: an instance's row down to specs, and the driver calls that take them."""

from __future__ import annotations

from datetime import timedelta

from iaas.db.repositories import catalog
from iaas.drivers.interface import (
    ComputeDriver,
    DriverError,
    ImageSpec,
    MachineKind,
    MachineSpec,
    NotFoundError,
    PermanentError,
    PowerState,
)
from iaas.resources.instances import Instance
from iaas.workflows.framework import Context, Done, NotYet, Outcome
from iaas.workflows.port_steps import ensure_new_port, ensure_port, nic_spec


def driver_of(ctx: Context) -> ComputeDriver:
    return ctx.backend.compute[MachineKind(ctx.instance.kind)]


def machine_spec(instance: Instance, *, image_id: str | None = None, disk_generation: int | None = None) -> MachineSpec:
    """Return what the driver must know; ``image_id`` and ``disk_generation`` override for a rebuild."""
    return MachineSpec(
        machine_id=instance.id,
        kind=MachineKind(instance.kind),
        hostname=instance.hostname,
        vcpus=instance.vcpus,
        memory_mib=instance.memory_mib,
        root_disk_gib=instance.root_disk_gib,
        image_id=image_id or instance.image_id,
        nics=tuple(nic_spec(nic) for nic in instance.nics),
        nesting=instance.nesting,
        privileged=instance.privileged,
        generation=instance.disk_generation if disk_generation is None else disk_generation,
        host_id=instance.host_id,
    )


def ensure_image_of(ctx: Context, image_id: str) -> Outcome:
    with ctx.store.read() as connection:
        image = catalog.get_image(connection, image_id)
    if image is None:
        raise PermanentError(f"image {image_id} is gone")
    spec = ImageSpec(image_id=image.id, source=image.source, kinds=frozenset(MachineKind(kind) for kind in image.kinds))
    ctx.backend.images.ensure_image(spec, kind=MachineKind(ctx.instance.kind), progress=ctx.report)
    return Done()


def ensure_image(ctx: Context) -> Outcome:
    """Bring the instance's image to the host. No undo: an image stays for the next machine."""
    return ensure_image_of(ctx, ctx.instance.image_id)


def ensure_network(ctx: Context) -> Outcome:
    """Make the networks of the instance's NICs, and its ports in them."""
    for nic in ctx.instance.nics:
        ensure_port(ctx, nic, hostname=ctx.instance.hostname)
    return Done()


def ensure_first_network(ctx: Context) -> Outcome:
    """As :func:`ensure_network`, for a new instance."""
    for nic in ctx.instance.nics:
        ensure_new_port(ctx, nic, hostname=ctx.instance.hostname)
    return Done()


def remove_ports(ctx: Context) -> None:
    """Take the instance's ports away. The networks stay."""
    for nic in ctx.instance.nics:
        ctx.backend.networks.remove_port(nic.subnet_id, nic.id)


def ensure_machine(ctx: Context) -> Outcome:
    driver_of(ctx).ensure_machine(machine_spec(ctx.instance))
    return Done()


def remove_machine(ctx: Context) -> None:
    driver_of(ctx).remove_machine(ctx.instance.id)


def start_machine(ctx: Context) -> Outcome:
    driver_of(ctx).start_machine(ctx.instance.id)
    return Done()


def force_stop(ctx: Context) -> None:
    """Undo of a start: cut the power if there is a machine at all."""
    try:
        driver_of(ctx).stop_machine(ctx.instance.id, force=True)
    except NotFoundError:
        return


def await_running(ctx: Context) -> Outcome:
    """Wait until the backend says that the machine runs. Whether the guest answers is watched apart."""
    state = driver_of(ctx).inspect_machine(ctx.instance.id)
    if state is None:
        raise PermanentError("the machine vanished from its host while it was starting")
    match state.power:
        case PowerState.RUNNING:
            return Done({"guest_ready": True}) if _answers_already(ctx) else Done()
        case PowerState.STARTING:
            return NotYet(state.next_change_at)
        case PowerState.CRASHED:
            raise PermanentError("the machine crashed while it was starting; see its console")
        case _:
            raise PermanentError("the machine stopped by itself while it was starting; see its console")


def _answers_already(ctx: Context) -> bool:
    """Return whether nobody need watch for the guest's first answer; asked only where asking costs nothing."""
    if ctx.backend.blocking:
        return False
    try:
        return driver_of(ctx).is_guest_ready(ctx.instance.id)
    except DriverError:  # whoever watches will ask again; the machine runs
        return False


def stop_gracefully(ctx: Context) -> Outcome:
    """Ask the guest to stop, again and again until the job's time-out, then cut the power."""
    driver = driver_of(ctx)
    began_at = ctx.job.created_at
    give_up_at = began_at + timedelta(seconds=float(ctx.input.get("timeout_s", 60)))
    force = bool(ctx.input.get("force", False))
    state = driver.inspect_machine(ctx.instance.id)
    if state is None:
        raise PermanentError("the machine vanished from its host")
    if state.power in (PowerState.STOPPED, PowerState.CRASHED):
        return Done()
    overdue = ctx.clock.now() >= give_up_at
    state = driver.stop_machine(ctx.instance.id, force=force or overdue)
    if state.power in (PowerState.STOPPED, PowerState.CRASHED):
        return Done({"forced": force or overdue})
    retry_at = state.next_change_at
    if retry_at is not None and not overdue:
        retry_at = min(retry_at, give_up_at)
    return NotYet(retry_at, message="waiting for the guest to stop")
