"""`bulkreg`, the command line: each command a thin call into the packages below it."""
