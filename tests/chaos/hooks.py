"""Puts hooks around the steps of all workflows, so that a test can break or kill at any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from iaas.drivers.interface import Backend, DriverError
from iaas.drivers.sim.backend import world_of
from iaas.drivers.sim.faults import Faults, When
from iaas.workflows import WORKFLOWS
from iaas.workflows.framework import Context, RowStep, Step, Workflow

Around = Callable[[str, str, Callable[..., Any], tuple[Any, ...]], Any]
"""Called with (action, step, the function, its arguments) in place of each do; undos have the step name ``undo x``."""


def wrapped(around: Around) -> Mapping[str, Workflow]:
    """Return all workflows with ``around`` around each do and undo."""

    def hook(action: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: around(action, name, function, arguments)

    def step_of(action: str, step: Step | RowStep) -> Step | RowStep:
        if isinstance(step, RowStep):
            return replace(step, do=hook(action, step.name, step.do))
        undo = None if step.undo is None else hook(action, f"undo {step.name}", step.undo)
        return replace(step, do=hook(action, step.name, step.do), undo=undo)

    return {
        action: replace(workflow, steps=tuple(step_of(action, step) for step in workflow.steps))
        for action, workflow in WORKFLOWS.items()
    }


def install(monkeypatch: pytest.MonkeyPatch, around: Around) -> None:
    """Let clouds that are made from now on use the wrapped workflows."""
    monkeypatch.setattr("iaas.cloud.WORKFLOWS", wrapped(around))


def effects() -> list[tuple[str, str]]:
    """Return (action, step) of every step with an effect outside the database."""
    return [
        (action, step.name)
        for action, workflow in WORKFLOWS.items()
        for step in workflow.steps
        if isinstance(step, Step)
    ]


def every_step() -> list[tuple[str, str]]:
    """Return (action, step) of every step."""
    return [(action, step.name) for action, workflow in WORKFLOWS.items() for step in workflow.steps]


def undos() -> list[tuple[str, str]]:
    """Return (action, step) of every step that can be undone."""
    return [
        (action, step.name)
        for action, workflow in WORKFLOWS.items()
        for step in workflow.steps
        if isinstance(step, Step) and step.undo is not None
    ]


def faults_of_world(backend: Backend) -> Faults:
    """Return the faults of a simulated backend."""
    return world_of(backend).faults


class Striker:
    """Arms a fault of the backend when one step begins, and notes which steps errors went through.

    ``call`` names the driver call that fails (``start_machine``), ``when`` before or after its effect;
    ``faults_of`` finds where the backend's faults are told.
    """

    def __init__(
        self,
        action: str,
        step: str,
        call: str,
        when: When,
        error: DriverError,
        *,
        count: int = 1,
        faults_of: Callable[[Backend], Faults] = faults_of_world,
    ) -> None:
        self._target = (action, step)
        self._faults_of = faults_of
        self._fault = (call, error)
        self._when: When = when
        self._count = count
        self._armed = False
        self.struck: list[tuple[str, str]] = []

    def __call__(self, action: str, step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if not self._armed and (action, step) == self._target:
            self._armed = True
            context: Context = arguments[0]
            self._faults_of(context.backend).fail_next(*self._fault, count=self._count, when=self._when)
        try:
            return function(*arguments)
        except DriverError:
            self.struck.append((action, step))
            raise


def twice(_action: str, _step: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Do everything that may run twice, twice."""
    if isinstance(arguments[0], Context):
        function(*arguments)
    return function(*arguments)
