"""The loop that every consumer runs in: polling, decoding, lanes, offsets, retries and dead letters. It calls handlers and knows no role."""
