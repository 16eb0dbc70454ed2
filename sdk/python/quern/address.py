"""Where is the server? What people write, as a host and a port."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:7400"
DEFAULT_PORT = 7400
"""Of an address without a scheme. One with a scheme has that scheme's own, as any URL does."""


@dataclass(frozen=True)
class Address:
    """One server, which answers HTTP and Arrow Flight on one port."""

    url: str
    host: str
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """Host and port, as a `Host` header and a Flight location have them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nothing leaves this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            # A name such as `127.example.org` may lead anywhere.
            return self.host == "localhost"

    def is_same_server(self, other: Address) -> bool:
        """Whether both are one place, however they are written."""
        return (self.host, self.port, self.tls) == (other.host, other.port, other.tls)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `http://host:port`, `https://host`, `host:port` or `host`."""
        if not isinstance(text, str):
            raise TypeError(
                f"url: expected the address of a server, such as {DEFAULT_URL}, found a {type(text).__name__}"
            )
        url = text if "://" in text else f"http://{text}"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _no_address(text, str(error)) from None
        if parts.scheme not in ("http", "https"):
            raise _no_address(text, f"{parts.scheme}:// is spoken by nobody here")
        if parts.username is not None:
            raise _no_address(text, "credentials go into `token`")
        if not host or parts.path.strip("/") or parts.query or parts.fragment:
            raise _no_address(text, "it has a host, perhaps a port, and nothing else")
        tls = parts.scheme == "https"
        if port is None:
            port = (443 if tls else 80) if "://" in text else DEFAULT_PORT
        address = cls("", host, port, tls)
        shown = url.rstrip("/") if "://" in text else f"http://{address.authority}"
        return cls(shown, host, port, tls)


def _no_address(text: str, why: str) -> ValueError:
    return ValueError(f"{text!r} is not the address of a server ({why}); one looks like {DEFAULT_URL}")
