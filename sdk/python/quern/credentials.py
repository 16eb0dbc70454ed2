"""Who asks, and whom does the client believe? A token, a certificate, a CA: from arguments, environment or a file."""

from __future__ import annotations

import json
import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from quern.address import Address

FILE = "quern/credentials.json"
"""In `$XDG_CONFIG_HOME`, else `~/.config`: an object of the URLs of servers, each with what is shown to it."""
FilePath: TypeAlias = "str | os.PathLike[str]"
_KEYS = ("token", "ca", "certificate", "key")
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Credentials:
    """What one server is shown. Files are PEM."""

    token: str | None = field(default=None, repr=False)
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
        from the file, where it has this server. Certificate and key are of one place."""
        arguments = {key: os.fspath(value) for key, value in given.items() if value is not None}
        environment = {key: value for key in _KEYS if (value := os.environ.get(f"QUERN_{key.upper()}"))}
        found: dict[str, str] = {}
        for place in (arguments, environment, _of_file(address)):
            for names in (("token",), ("ca",), ("certificate", "key")):
                if not any(name in found for name in names):
                    found.update({name: place[name] for name in names if name in place})
        credentials = cls(**found)
        credentials._check(address)
        return credentials

    def _check(self, address: Address) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        if self.certificate is not None and not address.tls:
            raise ValueError(f"a certificate is shown over TLS alone, and {address.url} is not https://")
        # Nor is it told in the message.
        if self.token is not None and not _TOKEN.match(self.token):
            raise ValueError("the token is empty, or has blanks or characters that no header can carry")
        if self.token is not None and not address.tls and not address.is_loopback:
            raise ValueError(f"the token would go to {address.url} in the clear: use https://, or `headers`")

    def headers(self) -> dict[str, str]:
        """Give what goes out with every call."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}

    def context(self) -> ssl.SSLContext:
        """Make what checks a server's certificate over HTTP."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise _unreadable(error, f"ca {self.ca}") from error
        if self.certificate is not None:
            try:
                # A password, so that nobody is asked for one at the terminal.
                context.load_cert_chain(self.certificate, self.key, password="")
            except OSError as error:
                raise _unreadable(error, f"certificate {self.certificate} with key {self.key}") from error
        return context

    def of_flight(self) -> dict[str, Any]:
        """Make the same for pyarrow's Flight client."""
        options: dict[str, Any] = {}
        if self.ca is not None:
            options["tls_root_certs"] = Path(self.ca).read_bytes()
        if self.certificate is not None and self.key is not None:
            options["cert_chain"] = Path(self.certificate).read_bytes()
            options["private_key"] = Path(self.key).read_bytes()
        return options


def _unreadable(error: OSError, what: str) -> ValueError:
    why = error.strerror or error
    return ValueError(f"{what}: expected PEM files that belong together, without a password ({why})")


def _of_file(address: Address) -> Mapping[str, str]:
    path = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / FILE
    try:
        path = path.expanduser()
        file = path.open("rb")
    # No home, or one that is not ours, as in a container, has nothing for us.
    except (FileNotFoundError, NotADirectoryError, PermissionError, RuntimeError):
        return {}
    with file:
        # Windows tells nothing about others here.
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS:
            raise PermissionError(f"{path} holds secrets and others may open it: chmod 600 {path}")
        try:
            servers = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
    try:
        found = _of_server(servers, address)
    except ValueError as error:
        raise ValueError(
            f'{path}: {error}; expected {{"{address.url}": {{"token": …, "ca": …, "certificate": …, "key": …}}}}'
        ) from None
    return found


def _of_server(servers: Any, address: Address) -> Mapping[str, str]:
    if not isinstance(servers, dict):
        raise ValueError("it is no object of servers")
    for url, found in servers.items():
        if not Address.parse(url).is_same_server(address):
            continue
        if not isinstance(found, dict) or not all(key in _KEYS and isinstance(found[key], str) for key in found):
            raise ValueError(f"{url} has something else")
        return found
    return {}
