"""Images: the ``tiny`` image made from Debian packages, and the store that brings images to the drivers.

Not one of the machine drivers: it makes artefacts (:class:`~iaas.drivers.interface.ImageArtefact`) and hands
them to whoever imports images for a kind.
"""

from iaas.drivers.images.store import ImageStore
from iaas.drivers.images.tiny import TinyImage, build_tiny, default_cache_dir

__all__ = ["ImageStore", "TinyImage", "build_tiny", "default_cache_dir"]
