"""The server that is tortured: a process of its own on one folder and one port, started again after each kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

START_TIMEOUT_S = 120
END_TIMEOUT_S = 120


class Server:
    """``iaas serve``.

    Args:
        folder: its state; the log is written beside it.
        options: more for the command line (``--backend real`` ...).
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        return self.folder.parent / f"{self.folder.name}.log"

    @property
    def token(self) -> str:
        found: str = json.loads((self.folder / "credentials.json").read_text())["api_token"]
        return found

    def start(self) -> None:
        """Start it and return when it says that it is ready; on the port that it had before."""
        argv = [sys.executable, "-m", "iaas.cli", "serve", "--listen", f"127.0.0.1:{self.port}"]
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [*argv, "--state", str(self.folder), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process = process
        assert process.stdout is not None
        timer = threading.Timer(START_TIMEOUT_S, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        assert line.startswith("ready "), f"the server did not start again: {line!r}; its log: {self.last_words()}"
        self.port = int(line.rpartition(":")[2])

    def end(self, how: signal.Signals) -> int:
        """Send the signal and return the exit status; 0 when there is no process."""
        process = self._process
        if process is None:
            return 0
        process.send_signal(how)
        status = process.wait(END_TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None
        return status

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text()[-3000:]
