"""Who asks, and whom does the client believe? A token, a certificate, a CA: from arguments, environment or a file."""

from __future__ import annotations

import json
import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from quern.address import Address

FILE = "quern/credentials.json"
"""In `$XDG_CONFIG_HOME`, else `~/.config`: an object of the URLs of servers, each with what is shown to it."""
FilePath: TypeAlias = "str | os.PathLike[str]"
_KEYS = ("token", "ca", "certificate", "key")


@dataclass(frozen=True)
class Credentials:
    """What one server is shown. Files are PEM."""

    token: str | None = None
    """An API key or a JWT."""
    ca: str | None = None
    """Whom a server's certificate must be of; the system's CAs unless given."""
    certificate: str | None = None
    """The client's own certificate chain."""
    key: str | None = None
    """The key of that."""

    @classmethod
    def find(cls, address: Address, given: Mapping[str, FilePath | None]) -> Credentials:
        """Take each from the arguments, else from `QUERN_TOKEN`, `QUERN_CA`, `QUERN_CERTIFICATE` and `QUERN_KEY`, else
        from the file, where it has this server."""
        of_file = _of_file(address)
        found: dict[str, str | None] = {}
        for key in _KEYS:
            value = given.get(key)
            if value is None:
                value = os.environ.get(f"QUERN_{key.upper()}") or of_file.get(key)
            found[key] = None if value is None else os.fspath(value)
        credentials = cls(**found)
        credentials._check(address)
        return credentials

    def _check(self, address: Address) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        if self.certificate is not None and not address.tls:
            raise ValueError(f"a certificate is shown over TLS alone, and {address.url} is not https://")
        if self.token is not None and not address.tls and not address.is_loopback:
            raise ValueError(f"the token would go to {address.url} in the clear: use https://, or `headers`")

    def headers(self) -> dict[str, str]:
        """Give what goes out with every call."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}

    def context(self) -> ssl.SSLContext:
        """Make what checks a server's certificate over HTTP."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def of_flight(self) -> dict[str, Any]:
        """Make the same for pyarrow's Flight client."""
        if self.ca is None and self.certificate is None:
            return {}
        options: dict[str, Any] = {}
        if self.ca is not None:
            options["tls_root_certs"] = Path(self.ca).read_bytes()
        if self.certificate is not None and self.key is not None:
            options["cert_chain"] = Path(self.certificate).read_bytes()
            options["private_key"] = Path(self.key).read_bytes()
        return options


def _of_file(address: Address) -> Mapping[str, str]:
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    path = Path(folder) / FILE
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH):
                raise PermissionError(f"{path} holds secrets and others may read it: chmod 600 {path}")
            servers = json.load(file)
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    found = servers.get(address.url, {}) if isinstance(servers, dict) else None
    if not isinstance(found, dict) or not all(key in _KEYS and isinstance(found[key], str) for key in found):
        raise ValueError(f'{path}: expected {{"{address.url}": {{"token": …, "ca": …, "certificate": …, "key": …}}}}')
    return found
