"""A CONNECT proxy in front of a guest that speaks in capitals."""

from __future__ import annotations

import contextlib
import socket
import threading

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


class FakeProxy:
    """A CONNECT proxy whose guest answers with what it got, in capitals, after the other side has ended."""

    def __init__(self) -> None:
        self.answer = OK
        self.heads: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            self.heads.append(head)
            connection.sendall(self.answer)
            if not self.answer.startswith(OK):
                return
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
            connection.sendall(data.upper())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
