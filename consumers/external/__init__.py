"""Asks an external registration service by HTTP before a micro-batch is decided."""
