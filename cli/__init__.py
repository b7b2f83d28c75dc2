"""`bulkreg`, the command line. Each command is a thin call into the packages below it."""
