"""A server whose cloud's time stands still: jobs never end by themselves. Takes the words of ``iaas serve``."""

from __future__ import annotations

import iaas.api.server
from iaas.cli.main import main
from iaas.kernel.clock import CloudClock


class FrozenClock(CloudClock):
    def __init__(self) -> None:
        super().__init__(scale=0)


if __name__ == "__main__":
    iaas.api.server.CloudClock = FrozenClock  # type: ignore[misc]  # the composition root has no switch for this
    main()
