"""Ports for what a test starts."""

import random

from compose.embedded.home import PORTS, is_free

# Not the module's own generator, which a test may have seeded.
_draws = random.SystemRandom()


def free_port() -> int:
    """Returns one that nobody listens at now, and that no outgoing connection can get before the test's server has it."""
    return next(port for port in iter(lambda: _draws.choice(PORTS), None) if is_free(port))
