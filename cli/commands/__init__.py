"""The commands of `bulkreg`, one module each."""
