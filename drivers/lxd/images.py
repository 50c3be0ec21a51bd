"""Images of a deployment in LXD's image store.

LXD knows an image by the digest of its bytes, once for all who use it; our names are aliases. So an
alias is the registration of one of our image ids, and the bytes go with the last alias on them.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from iaas.drivers.interface import ImageArtefact, MachineKind, NotFoundError, PermanentError
from iaas.drivers.lxd.connection import LXDConnection
from iaas.kernel.units import MIB

TARBALL = "tarball"
IMPORT_TIMEOUT_S = 600.0
REMOVE_TIMEOUT_S = 120.0
OWNED_PROPERTY = "iaas.imported"  # we brought the bytes, so we may delete them


class LXDImages:
    """``ImageImporter`` of one deployment."""

    def __init__(self, connection: LXDConnection, *, tag: str) -> None:
        self._connection = connection
        self._prefix = f"iaas-{tag}-"
        self._lock = threading.Lock()  # one import at a time: the bytes may be the same

    def alias(self, image_id: str) -> str:
        """Return the alias of ``image_id``."""
        return self._prefix + image_id

    def is_there(self, image_id: str) -> bool:
        """Return whether machines can be made from ``image_id``."""
        return self._find_alias(image_id) is not None

    def import_image(self, image_id: str, artefact: ImageArtefact) -> None:
        """See ``ImageImporter.import_image``."""
        tarball = artefact.files.get(TARBALL)
        if artefact.kind is not MachineKind.CONTAINER or tarball is None:
            raise PermanentError("the image has no artefact for container machines")
        with self._lock:
            known = self._find_alias(image_id)
            if known is not None and known["description"] == artefact.digest:
                return
            fingerprint = _sha256(tarball)
            if self._find_image(fingerprint) is None:
                self._upload(tarball)
            if known is None:
                body = {"name": self.alias(image_id), "target": fingerprint, "description": artefact.digest}
                self._connection.call("post", "images/aliases", action="name the image", json=body)
                return
            body = {"target": fingerprint, "description": artefact.digest}
            self._connection.call("put", self._alias_path(image_id), action="name the image", json=body)
            self._remove_if_unused(str(known["target"]))

    def remove_image(self, image_id: str) -> None:
        """See ``ImageImporter.remove_image``."""
        with self._lock:
            known = self._find_alias(image_id)
            if known is None:
                return
            self._connection.call("delete", self._alias_path(image_id), action="forget the image")
            self._remove_if_unused(str(known["target"]))

    def imported_images(self) -> list[str]:
        """See ``ImageImporter.imported_images``."""
        aliases = self._connection.get("images/aliases", action="list the images", params={"recursion": "1"})
        named = [str(alias["name"]) for alias in aliases]
        return sorted(name[len(self._prefix) :] for name in named if name.startswith(self._prefix))

    def _upload(self, tarball: Path) -> None:
        properties = urlencode({OWNED_PROPERTY: "true"})
        # The two projects differ in the header's prefix only; each ignores the other's.
        headers = {
            f"X-{product}-{key}": value
            for product in ("LXD", "Incus")
            for key, value in (("public", "0"), ("filename", tarball.name), ("properties", properties))
        }
        headers["Content-Type"] = "application/octet-stream"
        with tarball.open("rb") as file:  # streamed from here: an image may be larger than our memory
            self._connection.run(
                "post", "images", action="import the image", timeout_s=IMPORT_TIMEOUT_S, data=file, headers=headers
            )

    def _remove_if_unused(self, fingerprint: str) -> None:
        image = self._find_image(fingerprint)
        if image is None or image["aliases"] or image["properties"].get(OWNED_PROPERTY) != "true":
            return
        try:
            self._connection.run(
                "delete", f"images/{fingerprint}", action="remove the image", timeout_s=REMOVE_TIMEOUT_S
            )
        except NotFoundError:
            return  # another deployment on this LXD was faster

    def _alias_path(self, image_id: str) -> str:
        return f"images/aliases/{self.alias(image_id)}"

    def _find_alias(self, image_id: str) -> Any | None:
        return self._connection.find(self._alias_path(image_id), action="look for the image")

    def _find_image(self, fingerprint: str) -> Any | None:
        return self._connection.find(f"images/{fingerprint}", action="look for the image")


def _sha256(path: Path) -> str:
    """Return what LXD will call a unified image. Source: LXD, "Image format": the digest of the tarball."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()
