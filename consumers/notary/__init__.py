"""The role `notary`: keeps the logs of receipts, and signs their checkpoints (docs/receipts.md)."""
