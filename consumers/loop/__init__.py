"""The loop that every role runs in: polling, decoding, lanes, offsets, retries and dead letters. It knows handlers and no role."""
