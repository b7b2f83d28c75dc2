"""HTTP as every endpoint uses it: problems, ETags, cursors, JSON bodies, streams."""
