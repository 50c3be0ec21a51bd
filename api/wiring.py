"""Where a view finds the cloud that its request is for."""

from __future__ import annotations

from flask import current_app

from iaas.cloud import Cloud

KEY = "iaas.cloud"


def cloud() -> Cloud:
    """Return the cloud of the present request. (One a server now; a credential will lead to its cloud.)"""
    found: Cloud = current_app.extensions[KEY]
    return found
