"""A server that asks who one is, over TLS: who signs its certificate, and who may ask what."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

SETTINGS = """
auth: required
tls_certificate: server.crt
tls_key: server.key
tls_client_ca: ca.pem
"""


@dataclass(frozen=True)
class Authority:
    """Signs certificates into a folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Its own certificate."""
        return self.folder / "ca.pem"

    @property
    def tls(self) -> ssl.SSLContext:
        """What believes it."""
        return ssl.create_default_context(cafile=str(self.ca))

    @classmethod
    def at(cls, folder: Path) -> Authority:
        """Make one, and the certificate of a server on this machine."""
        authority = cls(folder)
        authority._openssl("req", "-x509", *_NEW, "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
        authority.sign("server", "DNS:localhost,IP:127.0.0.1")
        return authority

    def sign(self, name: str, names: str) -> tuple[Path, Path]:
        """Sign a certificate for these names, and give it and its key."""
        self._openssl("req", *_NEW, f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (self.folder / f"{name}.cnf").write_text(f"subjectAltName={names}\n")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.cnf", "-days", "1"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _openssl(self, *args: str) -> None:
        done = subprocess.run(["openssl", *args], cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"openssl {' '.join(args)}\n{done.stderr}"


_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")
