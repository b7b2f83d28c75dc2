"""Files that people have, as data: bytes in, values or a list of every mistake out (docs/files.md). Nothing here opens a file."""
