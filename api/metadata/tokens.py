"""Session tokens of the metadata service, as IMDSv2 has them: whoever holds one has asked for it from inside.

They are signed and not stored, by a key of this process: after its restart guests fetch new ones, as they do when
theirs expire.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from iaas.kernel.clock import Clock

MAX_TTL_S = 21_600
_STAMP_BYTES = 8
_MAC_BYTES = hashlib.sha256().digest_size


class TokenMint:
    """Makes tokens and knows them again.

    Args:
        clock: the wall's: what a token lets through is a matter of the machine's time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def make(self, vpc_id: str, instance_id: str, *, ttl_s: int) -> str:
        """Return a token that is good for one instance, from one VPC, for ``ttl_s``."""
        stamp = (self._now_ms() + ttl_s * 1000).to_bytes(_STAMP_BYTES, "big")
        return base64.urlsafe_b64encode(stamp + self._mac(stamp, vpc_id, instance_id)).decode()

    def is_good(self, token: str, vpc_id: str, instance_id: str) -> bool:
        """Return whether the token was made for this instance in this VPC and has not expired."""
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return False
        if len(raw) != _STAMP_BYTES + _MAC_BYTES:
            return False
        stamp, mac = raw[:_STAMP_BYTES], raw[_STAMP_BYTES:]
        if not hmac.compare_digest(mac, self._mac(stamp, vpc_id, instance_id)):
            return False
        return int.from_bytes(stamp, "big") > self._now_ms()

    def _mac(self, stamp: bytes, vpc_id: str, instance_id: str) -> bytes:
        return hmac.new(self._key, stamp + f"{vpc_id}|{instance_id}".encode(), hashlib.sha256).digest()

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)
