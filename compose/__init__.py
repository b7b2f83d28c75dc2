"""How the parts are put together to run."""
