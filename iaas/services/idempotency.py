"""Doing a request once, however often it is sent.

A client that does not know whether its request arrived sends it again with the same key. The answer to the first
is kept for a day, written in the very commit that accepted it: so there is never an effect without its record nor
a record without its effect, whenever the server is killed. A refused request leaves no record; its key is free.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from iaas.db.commit_hook import in_same_commit
from iaas.db.repositories import idempotency
from iaas.db.store import Store, Tx
from iaas.kernel.clock import Clock
from iaas.kernel.errors import FieldError, InTransition, InvalidInput, InvalidState
from iaas.resources.common import Principal, Role
from iaas.services.access import require
from iaas.services.vault import Vault

KEPT_FOR = timedelta(hours=24)
# A call that writes nothing itself ends long before that (a command in a guest: 300 s at most).
LOST_AFTER = timedelta(minutes=15)
_PURGE_EVERY = 64  # records written between two purges ...
_PURGE_AT_MOST = 4 * _PURGE_EVERY  # ... of so many expired ones: the table cannot grow for long

HEADER = "Idempotency-Key"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client was told: HTTP status, where the new resource is, the body as it was sent."""

    status: int
    body: bytes
    location: str | None = None


class _TakenMeanwhileError(Exception):
    """Another process wrote a record under the key while this call was on its way; nothing of this one stays."""


class IdempotencyService:
    """The keys of one cloud.

    Args:
        owner: an id of this run of the server; tells its own unfinished records from those of another process.
    """

    def __init__(self, store: Store, clock: Clock, vault: Vault, *, owner: str) -> None:
        self._store = store
        self._clock = clock
        self._vault = vault
        self._owner = owner
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], str] = {}
        self._written = itertools.count(1)

    def claim(self, principal: Principal, key: str, fingerprint: str) -> Claim | Answer:
        """Return the answer that the request was given before, or else the claim to do it now.

        Args:
            fingerprint: equal for equal requests only.

        Raises:
            InvalidInput: the key was used for another request (code ``idempotency_key_reused``).
            InTransition: the first request with the key still runs (``idempotency_in_progress``).
            InvalidState: the server stopped while it ran, so how it ended is unknown.
            PermissionDenied: the answer was given to a higher role.
        """
        name = (principal.project_id, key)
        with self._lock:
            running = self._running.get(name)
            if running is None:
                self._running[name] = fingerprint
        if running is not None:
            raise _in_progress() if running == fingerprint else _reused()
        claim = Claim(self, principal, key, fingerprint)
        try:
            found = self.answer_of(claim)
        except BaseException:  # raised again: however it ended, the key must not stay taken
            claim.release()
            raise
        if found is None:
            return claim
        claim.release()
        return found

    def answer_of(self, claim: Claim) -> Answer | None:
        """Return what is kept under the claim's key; None when there is nothing. Raises as :meth:`claim`."""
        with self._store.read() as connection:
            row = idempotency.find(connection, claim.project_id, claim.key)
        claim.replaces_expired = row is not None and row.expires_at <= self._clock.now()
        if row is None or claim.replaces_expired:
            return None
        if row.fingerprint != claim.fingerprint:
            raise _reused()
        require(claim.principal, Role(row.role))
        if row.status is None:
            may_run_elsewhere = row.owner != self._owner and self._store.engine.dialect.name != "sqlite"
            if may_run_elsewhere and self._clock.now() - row.created_at < LOST_AFTER:
                raise _in_progress()
            raise InvalidState(
                "the server stopped while the first request with this key ran; look at what came of it, then use"
                " another key",
                code="idempotency_outcome_unknown",
            )
        body = row.body or b""
        return Answer(
            status=row.status,
            location=row.location,
            body=self._vault.decrypt(body).encode() if row.is_encrypted else body,
        )

    def _record(self, tx: Tx, claim: Claim, answer: Answer | None, *, is_secret: bool) -> None:
        if claim.replaces_expired:
            idempotency.remove(tx, claim.project_id, claim.key)
        if next(self._written) % _PURGE_EVERY == 0:
            idempotency.remove_expired(tx, now=tx.now, limit=_PURGE_AT_MOST)
        if not idempotency.add(
            tx,
            project_id=claim.project_id,
            key=claim.key,
            fingerprint=claim.fingerprint,
            role=claim.principal.role.value,
            owner=self._owner,
            expires_at=tx.now + KEPT_FOR,
            **self._columns(answer, is_secret=is_secret),
        ):
            raise _TakenMeanwhileError

    def _columns(self, answer: Answer | None, *, is_secret: bool) -> dict[str, Any]:
        if answer is None:
            return {"status": None, "location": None, "body": None, "is_encrypted": False}
        body = self._vault.encrypt(answer.body.decode()) if is_secret else answer.body
        return {"status": answer.status, "location": answer.location, "body": body, "is_encrypted": is_secret}

    def do_once(self, claim: Claim, call: Callable[[], T], render: Callable[[T], Answer], *, is_secret: bool) -> Answer:
        """As :meth:`Claim.do_once`."""
        answers: list[Answer] = []
        if is_secret:
            self._vault.encrypt("")  # its first use imports and reads; not while everybody waits for the writer

        def record(tx: Tx, result: T) -> None:
            answers[:] = [render(result)]
            self._record(tx, claim, answers[0], is_secret=is_secret)

        try:
            with in_same_commit(record):
                call()
        except _TakenMeanwhileError:
            found = self.answer_of(claim)
            if found is None:
                raise _in_progress() from None  # it was removed again: a refusal frees its key
            return found
        if not answers:
            raise RuntimeError("the service wrote nothing: use run_once for such a call")
        return answers[0]

    def run_once(
        self, claim: Claim, call: Callable[[], T], render: Callable[[T], Answer], *, is_secret: bool
    ) -> Answer:
        """As :meth:`Claim.run_once`."""
        try:
            self._store.write(lambda tx: self._record(tx, claim, None, is_secret=False))
        except _TakenMeanwhileError:
            found = self.answer_of(claim)
            if found is None:
                raise _in_progress() from None
            return found
        try:
            answer = render(call())
        except Exception:  # raised again: however it was refused, nothing was done, so the key is free
            self._store.write(lambda tx: idempotency.remove(tx, claim.project_id, claim.key))
            raise
        columns = self._columns(answer, is_secret=is_secret)
        self._store.write(lambda tx: idempotency.finish(tx, claim.project_id, claim.key, owner=self._owner, **columns))
        return answer

    def release(self, claim: Claim) -> None:
        """As :meth:`Claim.release`."""
        with self._lock:
            self._running.pop((claim.project_id, claim.key), None)


class Claim:
    """The right to do one request now. Release it when the request has ended, however it did."""

    def __init__(self, service: IdempotencyService, principal: Principal, key: str, fingerprint: str) -> None:
        self._service = service
        self.principal = principal
        self.project_id = principal.project_id
        self.key = key
        self.fingerprint = fingerprint
        self.replaces_expired = False
        self.is_kept = False

    def do_once(self, call: Callable[[], T], render: Callable[[T], Answer], *, is_secret: bool = False) -> Answer:
        """Return ``render`` of what the one write of ``call`` returned; the answer is kept by that write's commit.

        Args:
            render: runs inside the transaction, in any thread.
            is_secret: the answer is kept encrypted.
        """
        answer = self._service.do_once(self, call, render, is_secret=is_secret)
        self.is_kept = True
        return answer

    def run_once(self, call: Callable[[], T], render: Callable[[T], Answer], *, is_secret: bool = False) -> Answer:
        """Return ``render`` of what ``call`` returned, which writes nothing: that it runs is noted before."""
        answer = self._service.run_once(self, call, render, is_secret=is_secret)
        self.is_kept = True
        return answer

    def release(self) -> None:
        """Let the next request with this key in. Twice does no harm."""
        self._service.release(self)


def check_key(key: str) -> None:
    """Accept 1 to 128 printable ASCII characters.

    Raises:
        InvalidInput: it is something else; names the header.
    """
    if not 1 <= len(key) <= 128 or not key.isascii() or not key.isprintable():
        message = "must be 1 to 128 printable ASCII characters"
        raise InvalidInput(f"{HEADER}: {message}", errors=[FieldError(HEADER, "invalid", message)])


def _reused() -> InvalidInput:
    message = "was used for another request"
    return InvalidInput(
        f"{HEADER}: {message}", code="idempotency_key_reused", errors=[FieldError(HEADER, "reused", message)]
    )


def _in_progress() -> InTransition:
    return InTransition("the first request with this idempotency key still runs", code="idempotency_in_progress")
