"""SSH key pairs of a project."""

from __future__ import annotations

import base64
import hashlib

from iaas.db.models import KeyPairRow
from iaas.db.postgres import lock_row
from iaas.db.repositories import catalog, quotas, shared
from iaas.db.repositories.query import Listing
from iaas.db.store import Store, Tx
from iaas.kernel import ids as id_prefixes
from iaas.kernel.errors import AlreadyExists, FieldError, InvalidInput, NotFound, ResourceRef
from iaas.kernel.ids import IdSource
from iaas.kernel.labels import check_labels
from iaas.resources.catalog import KeyPair
from iaas.resources.common import Principal, Role
from iaas.services.access import require
from iaas.services.labelling import patched_labels
from iaas.services.quotas import Quotas
from iaas.services.telling import tell


class KeyPairService:
    def __init__(self, store: Store, ids: IdSource, quotas: Quotas) -> None:
        self._store = store
        self._quotas = quotas
        self._ids = ids

    def create(
        self, principal: Principal, *, name: str, public_key: str | None = None, labels: dict[str, str] | None = None
    ) -> tuple[KeyPair, str | None]:
        """Return the key pair and, if it was made here, this once, its private key (OpenSSH format).

        Raises:
            InvalidInput: ``public_key`` is not one in OpenSSH format.
            AlreadyExists: the name is taken.
            QuotaExceeded: the project may have no more.
        """
        require(principal, Role.MEMBER)
        check_labels(labels or {})
        private_key: str | None = None
        if public_key is None:
            public_key, private_key = _generate(name)
        public_key = _checked(public_key)
        key_id = self._ids.new(id_prefixes.KEY_PAIR)

        def work(tx: Tx) -> tuple[KeyPair, str | None]:
            self._quotas.take(tx, principal.project_id, {"key_pairs": 1})
            _claim_name(tx, principal, key_id, name)
            catalog.add_key_pair(
                tx,
                id=key_id,
                project_id=principal.project_id,
                name=name,
                labels=labels or {},
                public_key=public_key,
                fingerprint=fingerprint(public_key),
            )
            shared.add_labels(tx, key_id, labels or {})
            tell(tx, principal, "key_pair", "created", key_id)
            return _written(tx, principal, key_id), private_key

        return self._store.write(work)

    def list_page(self, principal: Principal, listing: Listing) -> tuple[list[KeyPair], str | None]:
        with self._store.read() as connection:
            return catalog.list_key_pairs(connection, listing, project_id=principal.project_id)

    def get(self, principal: Principal, id_or_name: str) -> KeyPair:
        with self._store.read() as connection:
            found = catalog.get_key_pair(connection, id_or_name, project_id=principal.project_id)
        if found is None:
            raise _not_found(id_or_name)
        return found

    def update(
        self,
        principal: Principal,
        id_or_name: str,
        *,
        name: str | None = None,
        labels: dict[str, str | None] | None = None,
    ) -> KeyPair:
        require(principal, Role.MEMBER)
        key_pair = self.get(principal, id_or_name)

        def work(tx: Tx) -> KeyPair:
            lock_row(tx.connection, KeyPairRow.__table__, key_pair.id)
            current = catalog.get_key_pair(tx.connection, key_pair.id, project_id=principal.project_id)
            if current is None:  # deleted meanwhile: its name must not be taken for nobody
                raise _not_found(id_or_name)
            if name is not None and name != current.name:
                shared.release_all(tx, key_pair.id)
                _claim_name(tx, principal, key_pair.id, name)
            changed_labels = patched_labels(tx, KeyPairRow.__table__, key_pair.id, labels)
            catalog.update_key_pair(tx, key_pair.id, **({"name": name} if name else {}), **changed_labels)
            tell(tx, principal, "key_pair", "updated", key_pair.id)
            return _written(tx, principal, key_pair.id)

        return self._store.write(work)

    def delete(self, principal: Principal, id_or_name: str) -> None:
        """Delete the key pair. Instances made with it keep the key: it is in them."""
        require(principal, Role.MEMBER)
        key_pair = self.get(principal, id_or_name)

        def work(tx: Tx) -> None:
            if catalog.delete_key_pair(tx, key_pair.id):  # not twice when two do it at once
                # After the row: who renames or labels it holds that, so all that he took is committed by now.
                shared.release_all(tx, key_pair.id)
                shared.set_labels(tx, key_pair.id, {})
                quotas.give(tx, key_pair.project_id, {"key_pairs": 1})
                tell(tx, principal, "key_pair", "deleted", key_pair.id)

        self._store.write(work)


def _written(tx: Tx, principal: Principal, key_id: str) -> KeyPair:
    found = catalog.get_key_pair(tx.connection, key_id, project_id=principal.project_id)
    assert found is not None  # noqa: S101 - written in this transaction
    return found


def fingerprint(public_key: str) -> str:
    """Return ``SHA256:...`` as ssh-keygen prints it."""
    blob = base64.b64decode(public_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _not_found(id_or_name: str) -> NotFound:
    return NotFound(f"there is no key pair {id_or_name}", resource=ResourceRef("key_pair", id_or_name))


def _claim_name(tx: Tx, principal: Principal, key_id: str, name: str) -> None:
    if not shared.claim(tx, scope=f"name:key_pair:{principal.project_id}", value=name, resource_id=key_id):
        raise AlreadyExists(
            f"there is a key pair named {name} already", errors=[FieldError("name", "taken", "is taken")]
        )


def _checked(public_key: str) -> str:
    """Return the key on one line, if it is one line with one key that the library can read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    line = public_key.strip()
    try:
        if "\n" in line or "\r" in line:
            raise ValueError("more than one line")
        load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        message = "is not a public key in OpenSSH format (one line: type, base64, comment)"
        raise InvalidInput(f"public_key: {message}", errors=[FieldError("public_key", "invalid", message)]) from error
    return line


def _generate(name: str) -> tuple[str, str]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    comment = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return f"{public.decode()} {comment}", private.decode()
