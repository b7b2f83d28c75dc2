"""Files that people have, as data: bytes in, values or a list of every mistake out (specification, 9). Nothing here opens a file."""
