"""`python -m cli`: the same as the installed program."""

from cli.main import run

run()
