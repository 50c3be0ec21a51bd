"""The LXD instances of one deployment: finding, making, changing and removing them, safe against kills.

A machine is the instance of its name. A half-made instance lacks the mark of completeness and is
cleared away by the next ``ensure``. A rebuild makes the new generation whole under a second name
(``...-new``), then deletes the old one and renames. Killed in between there is the old one (and perhaps a
half-made second one), or only the whole second one, which counts as the machine and gets its name by
the next call that changes something.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from iaas.drivers.interface import DriverError, NotFoundError, PermanentError, PowerState
from iaas.drivers.linux import names
from iaas.drivers.lxd import config
from iaas.drivers.lxd.connection import LXDConnection
from iaas.drivers.lxd.errors import BusyError

CREATE_TIMEOUT_S = 300.0  # a large image on a pool that must copy it
CHANGE_TIMEOUT_S = 60.0
POWER_TIMEOUT_S = 60.0
DELETE_TIMEOUT_S = 120.0
# How long LXD itself waits for a guest to stop. Longer than any client asks for: the cloud counts the
# time, and cuts the power in the midst of it.
GRACEFUL_STOP_TIMEOUT_S = 900
BUSY_PATIENCE_S = 15.0  # a guest that powered itself off keeps LXD busy for a second or two
BUSY_POLL_S = 0.1

# Source: LXD REST API, InstancePut.
WRITABLE = ("architecture", "config", "description", "devices", "ephemeral", "profiles", "stateful")

T = TypeVar("T")
Instance = Mapping[str, Any]
"""One instance as LXD's REST API describes it."""

log = logging.getLogger(__name__)


class LXDInstances:
    """Instances by name; the caller sees to it that one call at a time changes a machine."""

    def __init__(self, connection: LXDConnection, *, tag: str) -> None:
        self._connection = connection
        self._tag = tag
        self._is_closed = threading.Event()
        self._stop_operations: dict[str, str] = {}  # name -> LXD's operation that waits for the guest to stop

    # Looking

    def find(self, name: str) -> Instance | None:
        """Return the machine's instance, or its whole successor that has not got the name yet, or None."""
        instance = self._find_exactly(name)
        if instance is not None:
            return instance
        spare = self._find_exactly(config.spare_name(name))
        return spare if spare is not None and config.is_complete(spare) else None

    def require(self, name: str) -> Instance:
        """Return the machine's instance, under its right name from now on.

        Raises:
            NotFoundError: there is none.
        """
        instance = self.find(name)
        if instance is None:
            raise NotFoundError("there is no such machine")
        return instance if instance["name"] == name else self.promote(name)

    def find_all(self) -> dict[str, Instance]:
        """Return all instances of this deployment, half-made ones too, by the machine's name."""
        listed = self._connection.get("instances", action="list the machines", params={"recursion": "1"})
        ours: dict[str, Instance] = {}
        for instance in listed:
            instance_name = str(instance["name"])
            name = instance_name.removesuffix(config.SPARE_SUFFIX)
            is_ours = names.machine_suffix(self._tag, name) is not None and _is_marked(instance, self._tag)
            if is_ours and (instance_name == name or name not in ours):
                ours[name] = instance
        return ours

    def was_asked_to_stop(self, name: str) -> bool:
        """Return whether a graceful stop was begun that nobody has seen the end of."""
        return name in self._stop_operations

    def is_stopping(self, name: str) -> bool:
        """Return whether the guest was asked to stop and LXD still waits for it."""
        operation_id = self._stop_operations.get(name)
        if operation_id is None:
            return False
        if self._connection.is_operation_running(operation_id):
            return True
        self._stop_operations.pop(name, None)
        return False

    # Making and removing

    def settle(self, name: str) -> Instance | None:
        """Finish or clear away what a killed call left; return the machine's whole instance, if any."""
        instance = self._find_exactly(name)
        spare = self._find_exactly(config.spare_name(name))
        if instance is not None and not config.is_complete(instance):
            self._delete(name)
            instance = None
        if spare is None:
            return instance
        if instance is None and config.is_complete(spare):
            return self.promote(name)
        self._delete(config.spare_name(name))
        return instance

    def create(self, request: Mapping[str, Any]) -> Instance:
        """Make the instance whole, or leave nothing of it."""
        instance_name = str(request["name"])
        with contextlib.ExitStack() as undo:
            undo.callback(self._delete_quietly, instance_name)
            self._connection.run(
                "post", "instances", action="make the machine", timeout_s=CREATE_TIMEOUT_S, json=request
            )
            self.configure(instance_name, {config.KEY_COMPLETE: "true"}, action="make the machine")
            undo.pop_all()
        return self._get(instance_name)

    def replace(self, name: str) -> Instance:
        """Put the whole second instance in the place of the first."""
        self._delete(name)
        return self.promote(name)

    def promote(self, name: str) -> Instance:
        """Give the whole second instance the machine's name."""
        path = f"instances/{config.spare_name(name)}"
        self._when_free(
            lambda: self._connection.run(
                "post", path, action="rename the machine", timeout_s=CHANGE_TIMEOUT_S, json={"name": name}
            )
        )
        return self._get(name)

    def remove(self, name: str) -> None:
        """Remove all instances of the machine, running or not."""
        self._delete(config.spare_name(name))
        self._delete(name)
        self._stop_operations.pop(name, None)

    # Changing

    def configure(self, instance_name: str, changes: Mapping[str, str], *, action: str) -> None:
        """Change some configuration keys."""
        path, body = f"instances/{instance_name}", {"config": dict(changes)}
        self._when_free(
            lambda: self._connection.run("patch", path, action=action, timeout_s=CHANGE_TIMEOUT_S, json=body)
        )

    def set_devices(self, instance_name: str, devices: Mapping[str, Mapping[str, str]], *, action: str) -> None:
        """Put these devices, whole, in the place of those with the same names; others stay."""
        path, body = f"instances/{instance_name}", {"devices": {name: dict(each) for name, each in devices.items()}}
        self._when_free(
            lambda: self._connection.run("patch", path, action=action, timeout_s=CHANGE_TIMEOUT_S, json=body)
        )

    def drop_device(self, instance_name: str, device: str, *, action: str) -> None:
        """Take one device out. Already absent is success."""
        path = f"instances/{instance_name}"

        def drop() -> None:
            instance, version = self._connection.get_versioned(path, action=action)
            if device not in instance["devices"]:
                return
            # Only what is put in whole can lack something; LXD's own notes go with it, in this very version.
            body = {key: instance[key] for key in WRITABLE if key in instance}
            body["devices"] = {name: each for name, each in instance["devices"].items() if name != device}
            headers = {"If-Match": version} if version else {}
            self._connection.run("put", path, action=action, timeout_s=CHANGE_TIMEOUT_S, json=body, headers=headers)

        self._when_free(drop)

    def start(self, name: str, *, is_suspended: bool) -> None:
        """Start the machine, or let a suspended one go on."""
        self._set_power(name, {"action": "unfreeze" if is_suspended else "start"}, PowerState.RUNNING)

    def cut_power(self, name: str) -> None:
        """Kill all processes of the machine."""
        self._set_power(name, {"action": "stop", "force": True}, PowerState.STOPPED)
        self._stop_operations.pop(name, None)

    def begin_stop(self, name: str) -> None:
        """Ask the guest to stop; :meth:`is_stopping` tells how it goes."""
        if self.is_stopping(name):
            return
        body = {"action": "stop", "force": False, "timeout": GRACEFUL_STOP_TIMEOUT_S}
        operation_id, _ = self._connection.begin("put", f"instances/{name}/state", action="stop the machine", json=body)
        self._stop_operations[name] = operation_id

    def forget_stop(self, name: str) -> None:
        """The machine was found stopped: there is nothing to wait for any more."""
        self._stop_operations.pop(name, None)

    def close(self) -> None:
        """End all waiting for LXD to be free."""
        self._is_closed.set()

    # Inner

    def _find_exactly(self, instance_name: str) -> Instance | None:
        instance: Instance | None = self._connection.find(f"instances/{instance_name}", action="look at the machine")
        # The name alone is no proof of it being ours.
        return instance if instance is not None and _is_marked(instance, self._tag) else None

    def _get(self, instance_name: str) -> Instance:
        instance: Instance = self._connection.get(f"instances/{instance_name}", action="look at the machine")
        return instance

    def _set_power(self, name: str, body: Mapping[str, Any], wanted: PowerState) -> None:
        request = {"timeout": int(POWER_TIMEOUT_S), **body}
        action = f"{body['action']} the machine"
        path = f"instances/{name}/state"
        try:
            self._when_free(
                lambda: self._connection.run(
                    "put", path, action=action, timeout_s=POWER_TIMEOUT_S + BUSY_PATIENCE_S, json=request
                )
            )
        except PermanentError:
            # "Already running" and "already stopped" are failures to LXD, and success to us.
            if config.machine_state(self._get(name)).power is not wanted:
                raise

    def _delete(self, instance_name: str) -> None:
        instance = self._find_exactly(instance_name)
        if instance is None:
            return
        path = f"instances/{instance_name}"
        try:
            if config.machine_state(instance).power not in (PowerState.STOPPED, PowerState.CRASHED):
                self._set_power(instance_name, {"action": "stop", "force": True}, PowerState.STOPPED)
            self._when_free(
                lambda: self._connection.run("delete", path, action="remove the machine", timeout_s=DELETE_TIMEOUT_S)
            )
        except NotFoundError:
            return

    def _delete_quietly(self, instance_name: str) -> None:
        try:
            self._delete(instance_name)
        except DriverError as exc:
            # The failure that brought us here is the one to tell; the next ensure clears this away.
            log.warning("half-made instance %s stays for now: %s", instance_name, exc)

    def _when_free(self, call: Callable[[], T]) -> T:
        """Return ``call()`` as soon as no other operation of LXD holds the instance."""
        deadline_s = time.monotonic() + BUSY_PATIENCE_S
        while True:
            try:
                return call()
            except BusyError:
                if time.monotonic() >= deadline_s or self._is_closed.wait(BUSY_POLL_S):
                    raise


def _is_marked(instance: Instance, tag: str) -> bool:
    return instance["config"].get(config.KEY_TAG) == tag and config.KEY_ID in instance["config"]
