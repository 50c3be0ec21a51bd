"""A backend whose every call is logged, for servers that log at debug. It costs nothing where it is not used."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from iaas.drivers.interface.backend import Backend

log = logging.getLogger("iaas.drivers.calls")

D = TypeVar("D")


def logged(backend: Backend) -> Backend:
    """Return the same backend; each call of a driver writes one line when it returns or raises."""
    return replace(
        backend,
        compute={kind: _logged(driver, kind.value) for kind, driver in backend.compute.items()},
        networks=_logged(backend.networks, "networks"),
        images=_logged(backend.images, "images"),
    )


def _logged(driver: D, name: str) -> D:
    return cast(D, _LoggedDriver(driver, name))  # it answers to everything the driver answers to


class _LoggedDriver:
    """Stands before a driver. Arguments are not logged but for the first, which names the object."""

    def __init__(self, driver: object, name: str) -> None:
        self._driver = driver
        self._name = name
        self._calls: dict[str, Callable[..., Any]] = {}

    def __getattr__(self, attribute: str) -> Any:
        if (known := self._calls.get(attribute)) is not None:
            return known
        value = getattr(self._driver, attribute)
        if not callable(value) or attribute.startswith("_"):
            return value
        self._calls[attribute] = call = _logged_call(f"{self._name}.{attribute}", value)
        return call


def _logged_call(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        began_s = time.perf_counter()
        outcome = "ok"
        try:
            return function(*args, **kwargs)
        except Exception as error:  # raised again: it is only looked at
            outcome = f"{type(error).__name__}: {error}"
            raise
        finally:
            log.debug("driver_call %s(%s) %.1f ms: %s", name, _object_of(args), _ms_since(began_s), outcome)

    return call


def _object_of(args: tuple[Any, ...]) -> str:
    """Return the id of what the call is about: specs and user data may hold a tenant's secrets."""
    if not args:
        return ""
    first = args[0]
    if isinstance(first, str):
        return first
    for field in ("machine_id", "nic_id", "subnet_id", "vpc_id", "image_id"):
        if hasattr(first, field):
            return str(getattr(first, field))
    return type(first).__name__


def _ms_since(began_s: float) -> float:
    return (time.perf_counter() - began_s) * 1000
