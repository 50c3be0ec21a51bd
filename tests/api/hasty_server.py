"""A server that soon lets go of idle threads and dead connections. Takes the words of ``iaas serve``."""

from __future__ import annotations

import iaas.api.server
from iaas.cli.main import main

if __name__ == "__main__":
    iaas.api.server.IDLE_THREAD_S = 5
    iaas.api.server.SILENCE_S = 6
    main()
