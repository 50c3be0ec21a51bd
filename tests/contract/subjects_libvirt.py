"""The libvirt driver in the contract suite: real VMs, emulated, on a network of the session's own fabric."""

from __future__ import annotations

import pytest

from iaas.drivers.images import build_tiny
from iaas.drivers.interface import MachineKind
from iaas.drivers.libvirt import LibvirtComputeDriver, VirtTypeChoice
from tests.contract.subjects import StandardSubject
from tests.real_host import RealHost

IMAGE_ID = "img-contract"
STRANGERS_TAG = "zzzz"


def make_subject(request: pytest.FixtureRequest) -> StandardSubject:
    host: RealHost = request.getfixturevalue("real_host")

    def open_driver(tag: str = host.tag) -> LibvirtComputeDriver:
        # Emulation, always: what a test shows must not depend on the host's processor.
        return LibvirtComputeDriver(
            host.libvirt_uri, tag, host.state_dir / f"compute-{tag}", virt_type=VirtTypeChoice.QEMU
        )

    importer = open_driver()
    importer.import_image(IMAGE_ID, build_tiny(None, print).artefacts[MachineKind.VM])

    def close() -> None:
        importer.remove_image(IMAGE_ID)
        importer.close()

    return StandardSubject(
        kind=MachineKind.VM,
        open_driver=open_driver,
        networks=host.networks,
        image_id=IMAGE_ID,
        boot_timeout_s=120,
        stop_timeout_s=60,
        stranger_factory=lambda: open_driver(STRANGERS_TAG),
        on_close=close,
    )
