"""Reaches the stack of a home, or the database and broker that the environment names, and turns their failures into messages."""
