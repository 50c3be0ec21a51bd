"""Where the endpoint and the token come from: arguments, then the environment, then a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from iaas.client.errors import ConfigurationError

ENDPOINT_VARIABLE = "IAAS_ENDPOINT"
TOKEN_VARIABLE = "IAAS_TOKEN"  # noqa: S105 - the name of a variable, not a secret
FILE_VARIABLE = "IAAS_CREDENTIALS"
_FILE_NAME = "credentials.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to reach a cloud, and as whom. Secrets are left out of ``repr``.

    The access key is for the signed dialects; this SDK speaks with the token. ``zone`` is a suggestion of
    the server's for people who must name one.
    """

    endpoint: str
    api_token: str | None = field(default=None, repr=False)
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    zone: str | None = None


def find_credentials(
    endpoint: str | None = None,
    token: str | None = None,
    *,
    credentials_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Credentials:
    """Return the credentials to use; each value from the first place that has it.

    The places: the arguments; ``IAAS_ENDPOINT`` and ``IAAS_TOKEN``; the file named by ``credentials_file``, by
    ``IAAS_CREDENTIALS``, or the first of the default ones that is there. A file that was asked for must be there.

    Raises:
        ConfigurationError: no endpoint was found, or what was found cannot be used.
    """
    env = os.environ if environ is None else environ
    endpoint = endpoint or env.get(ENDPOINT_VARIABLE) or None
    token = token or env.get(TOKEN_VARIABLE) or None
    stored = _read_file(credentials_file, env)
    endpoint = endpoint or stored.get("endpoint")
    if not endpoint:
        raise ConfigurationError(
            f"no endpoint is known: give one, set {ENDPOINT_VARIABLE},"
            f" or point {FILE_VARIABLE} at the server's credentials file"
        )
    return Credentials(
        endpoint=_checked_endpoint(endpoint),
        api_token=_checked_token(token or stored.get("api_token")),
        access_key_id=stored.get("access_key_id"),
        secret_access_key=stored.get("secret_access_key"),
        zone=stored.get("zone"),
    )


def default_credentials_files(environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return where credentials are looked for unasked: one's own file, then that of a local server's default folder.

    ``~/.config/iaas/credentials.json`` and ``~/.local/state/iaas/credentials.json``, below ``XDG_CONFIG_HOME`` and
    ``XDG_STATE_HOME`` where those are set. Never the working directory: what was checked out there could then
    choose the server that one's commands, and secrets in user data, go to.
    """
    env = os.environ if environ is None else environ
    home = Path(os.path.expanduser("~"))  # not Path.home(): a user without a home is no reason to fail
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    state = Path(env.get("XDG_STATE_HOME") or home / ".local" / "state")
    return config / "iaas" / _FILE_NAME, state / "iaas" / _FILE_NAME


def _read_file(path: str | os.PathLike[str] | None, env: Mapping[str, str]) -> Mapping[str, str]:
    asked = path or env.get(FILE_VARIABLE)
    if asked:
        file = Path(asked)
    else:
        found = [each for each in default_credentials_files(env) if os.path.isfile(each)]
        if not found:
            return {}
        file = found[0]
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"there is no credentials file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the credentials file {file} cannot be read: {error}") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the credentials file {file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"the credentials file {file} does not hold a JSON object")
    return {name: value for name, value in content.items() if isinstance(value, str) and value}


def _checked_endpoint(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, a bad IPv6 address
        usable = False
    if not usable:
        raise ConfigurationError(f"the endpoint {endpoint!r} is not a URL such as http://127.0.0.1:8080")
    return endpoint.rstrip("/")


def _checked_token(token: str | None) -> str | None:
    if token is None:
        return None
    token = token.strip()
    # It goes into a header: a line break there would be a second header, and anything else is a mistake too.
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError("the token holds characters that no token has")
    return token
