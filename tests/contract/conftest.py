"""Which drivers the contract suite runs against: one line each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.network_subjects import NETWORK_SUBJECTS, PACKET_SUBJECTS, NetworkSubject, subject_params
from tests.contract.shared_machine import SharedMachine
from tests.contract.subjects import ComputeSubject
from tests.real_host import RealHost

# name -> module and factory ``(request) -> ComputeSubject``. Real ones ask ``request`` for ``real_host``.
COMPUTE_SUBJECTS: dict[str, tuple[str, str]] = {
    "sim-vm": ("tests.contract.subjects_sim", "make_vm_subject"),
    "sim-container": ("tests.contract.subjects_sim", "make_container_subject"),
    "libvirt": ("tests.contract.subjects_libvirt", "make_subject"),
    "lxd": ("tests.contract.subjects_lxd", "make_subject"),
}
REAL = frozenset({"libvirt", "lxd"})


def _params() -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.real if name in REAL else ()) for name in COMPUTE_SUBJECTS]


@pytest.fixture(scope="session", params=_params())
def subject(request: pytest.FixtureRequest) -> Iterator[ComputeSubject]:
    """One driver on its host; set-up is paid once per session."""
    module, factory = COMPUTE_SUBJECTS[request.param]
    # Imported only now: a host without the driver's libraries still runs the other subjects.
    subject: ComputeSubject = getattr(importlib.import_module(module), factory)(request)
    yield subject
    subject.close()


@pytest.fixture(params=subject_params(PACKET_SUBJECTS))
def wired(request: pytest.FixtureRequest) -> Iterator[NetworkSubject]:
    """A network driver whose guests exchange real packets."""
    made = NETWORK_SUBJECTS[request.param](request)
    yield made
    made.close()


@pytest.fixture
def host(wired: NetworkSubject) -> RealHost:
    """Where the guests of ``wired`` are plugged."""
    assert wired.host is not None
    return wired.host


@pytest.fixture(scope="session")
def shared_machine(subject: ComputeSubject) -> SharedMachine:
    """The one machine that most tests share, in whatever state the last one left it."""
    return SharedMachine(subject)


@pytest.fixture
def running(shared_machine: SharedMachine) -> SharedMachine:
    """The shared machine, running and its guest ready. The test may stop, rebuild or spoil it."""
    shared_machine.bring_up()
    return shared_machine


@pytest.fixture
def stopped(shared_machine: SharedMachine) -> SharedMachine:
    """The shared machine, stopped. The test may start, resize or rebuild it."""
    shared_machine.bring_down()
    return shared_machine
