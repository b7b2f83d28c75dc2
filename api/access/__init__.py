"""Who the caller is and what they may ask for: tokens, their keys, identities, tickets and rate limits."""
