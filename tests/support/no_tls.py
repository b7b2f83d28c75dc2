"""For HTTP clients of `http://` addresses."""

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The `verify` of an httpx client. A client without it loads the certificates of all authorities, which takes 22 ms of CPU."""
