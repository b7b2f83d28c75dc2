"""Reads people's files: takes their bytes, and returns values or a list of all mistakes (docs/files.md). Nothing here opens a file."""
