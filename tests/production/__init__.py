"""What an operator installs, on the real programs: `make test-production`."""
