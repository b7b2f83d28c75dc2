"""The small part of curl that docs/http.md uses, for machines without it. It prints the response's status on standard error."""

import argparse
import sys
from pathlib import Path

import httpx


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-s", "-S", "-N", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", "--data-binary", dest="data")
    parser.add_argument("-D", dest="head", type=Path)
    parser.add_argument("-o", dest="file", type=Path)
    parser.add_argument("-w", dest="told")
    given = parser.parse_args()
    headers = [tuple(header.split(": ", 1)) for header in given.headers]
    data: str | None = given.data
    if data is not None and data.startswith("@"):
        data = Path(data[1:]).read_text()
    answer = httpx.request(
        given.method or ("GET" if data is None else "POST"), given.url, headers=headers, content=data, timeout=60
    )
    if given.head is not None:
        given.head.write_text("".join(f"{name}: {value}\r\n" for name, value in answer.headers.items()))
    if given.file is not None:
        given.file.write_bytes(answer.content)
    else:
        sys.stdout.buffer.write(answer.content)
    print(f"status {answer.status_code}", file=sys.stderr)


if __name__ == "__main__":
    main()
