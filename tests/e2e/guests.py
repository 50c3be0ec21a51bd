"""What tests do inside guests of the tiny image: commands, pings, pages, and waiting where no call is in between."""

from __future__ import annotations

import re

from iaas.client import Instance

PEER_PAGE = "/cgi-bin/peer"
_PEER_SCRIPT = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n%s' "$REMOTE_ADDR"
"""


def shell(guest: Instance, script: str, *, timeout_s: int = 60) -> str:
    """Return what a script of the guest's shell wrote; fails the test when it fails."""
    done = guest.execute(["sh", "-ec", script], timeout_s=timeout_s)
    assert done.exit_code == 0, f"{guest.name} ({done.exit_code}): {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def shell_succeeds(guest: Instance, script: str, *, timeout_s: int = 60) -> bool:
    """Return whether the script ended with success."""
    return guest.execute(["sh", "-c", script], timeout_s=timeout_s).exit_code == 0


def wait_inside(guest: Instance, condition: str, timeout_s: int, what: str, *, after: str = ":") -> float:
    """Return how many seconds after the end of the command ``after`` the shell ``condition`` was true.

    It is looked at every 50 ms inside the guest: from outside one look takes an emulated machine a second.
    """
    script = f"""
        {after} || exit 98
        read -r start _ < /proc/uptime
        tries=0
        until {condition}; do
            tries=$((tries + 1))
            [ $tries -lt {timeout_s * 20} ] || exit 99
            usleep 50000
        done
        read -r end _ < /proc/uptime
        echo "$start $end"
    """
    # Longer than the tries alone take: each look costs something, too.
    done = guest.execute(["sh", "-c", script], timeout_s=timeout_s * 4)
    assert done.exit_code == 0, f"{guest.name}: waited for {what}; the last look said {done.stdout}{done.stderr}"
    start, end = done.stdout.split()[-2:]
    return float(end) - float(start)


def in_namespace(namespace: str | None) -> str:
    """Return what comes before a command that shall run in a network namespace of the guest."""
    return f"ip netns exec {namespace} " if namespace else ""


def pings(guest: Instance, address: str, *, namespace: str | None = None, source: str | None = None) -> bool:
    """Return whether ``address`` answers; one answer of three is enough, the first packets may wait for ARP."""
    sender = f"-I {source} " if source else ""
    command = f"{in_namespace(namespace)}ping -c 1 -W 1 {sender}{address}"
    return shell_succeeds(guest, f"{command} || {command} || {command}")


def page(guest: Instance, url: str, *, namespace: str | None = None) -> str:
    """Return what an HTTP server answers to the guest; "" when nothing does within 5 s."""
    # The time limit is not wget's own: its option -T crashes this one.
    done = guest.execute(["sh", "-c", f"{in_namespace(namespace)}timeout 5 wget -q -O - http://{url}"], timeout_s=30)
    return done.stdout if done.exit_code == 0 else ""


def serve_peer_page(guest: Instance) -> None:
    """Give the guest's HTTP servers (in whatever namespace) a page that tells who asks: ``PEER_PAGE``."""
    shell(guest, "mkdir -p /var/www/cgi-bin")
    done = guest.execute(
        ["sh", "-ec", "cat > /var/www/cgi-bin/peer; chmod 755 /var/www/cgi-bin/peer"], stdin=_PEER_SCRIPT
    )
    assert done.exit_code == 0, done.stderr


def seen_by(guest: Instance, address: str, *, namespace: str | None = None) -> str:
    """Return the source address that the HTTP server at ``address`` sees when the guest asks; "" when it cannot."""
    found = page(guest, f"{address}{PEER_PAGE}", namespace=namespace)
    return found.strip("[]").removeprefix("::ffff:")


class Traffic:
    """Pings of one guest to an address, from now until ``end``."""

    def __init__(self, guest: Instance, address: str) -> None:
        self._guest = guest
        self._log = "/tmp/traffic.log"
        shell(guest, f"ping -i 0.1 {address} > {self._log} 2>&1 & echo $! > /tmp/traffic.pid")
        self._wait_for_answers(3)

    def _wait_for_answers(self, count: int) -> None:
        wait_inside(self._guest, f"[ $(grep -c seq= {self._log}) -ge {count} ]", 10, "answers to pings")

    def answered(self) -> list[int]:
        """Return the sequence numbers of the answers so far."""
        return [int(each) for each in re.findall(r"seq=(\d+)", shell(self._guest, f"cat {self._log}"))]

    def end(self) -> list[int]:
        """Stop, and return the sequence numbers that were answered."""
        before = len(self.answered())
        self._wait_for_answers(before + 1)  # it goes on even now
        shell(self._guest, "kill -INT $(cat /tmp/traffic.pid)")
        return self.answered()
