"""Asks the process of `prepared.py` to fork one that runs a command, and ends as that one does: `prepared_client.py SOCKET ARGUMENT…`."""

import json
import os
import signal
import socket
import sys


def main(address: str, arguments: list[str]) -> None:
    """Never returns."""
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109 - pathlib is slow to import
    content = json.dumps(request).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        sent = socket.send_fds(server, [content], [0, 1, 2])
        server.sendall(content[sent:])
        code = int(server.recv(100))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
