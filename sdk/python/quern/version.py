"""Which version of the client is this? It has the server's number."""

__version__ = "0.1.0"
