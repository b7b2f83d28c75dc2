"""The stack of a home, or the database and the broker that the environment names: found, reached, and their failures in a sentence."""
