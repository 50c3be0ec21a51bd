"""Container machines on the private LXD of the test deployment, as a subject of the contract suite."""

from __future__ import annotations

import pytest

from iaas.drivers.images.tiny import build_tiny
from iaas.drivers.interface import MachineKind
from tests.contract.subjects import StandardSubject
from tests.real_host import RealHost

IMAGE_ID = "img-lxdtests"
STRANGER_TAG = "zzzz"


def make_subject(request: pytest.FixtureRequest) -> StandardSubject:
    host: RealHost = request.getfixturevalue("real_host")

    # Imported only now: a host that cannot run it has said so in a sentence, and may lack pylxd.
    from iaas.drivers.lxd import LXDComputeDriver

    def open_driver(tag: str = host.tag) -> LXDComputeDriver:
        return LXDComputeDriver(host.lxd_endpoint, tag=tag, pool=host.lxd_pool, state_dir=host.state_dir)

    def remove_image() -> None:
        driver = open_driver()
        try:
            driver.remove_image(IMAGE_ID)
            # Clouds of other tests have left theirs; those go with the host.
            assert IMAGE_ID not in driver.imported_images()
        finally:
            driver.close()

    artefact = build_tiny(None, lambda sentence: None).artefacts[MachineKind.CONTAINER]
    importer = open_driver()
    importer.import_image(IMAGE_ID, artefact)
    importer.close()
    return StandardSubject(
        kind=MachineKind.CONTAINER,
        open_driver=open_driver,
        networks=host.networks,
        image_id=IMAGE_ID,
        boot_timeout_s=60,
        stop_timeout_s=30,
        stranger_factory=lambda: open_driver(STRANGER_TAG),
        on_close=remove_image,
    )
