"""The Merkle log of an organization's records, and the receipts that it gives: computed and checked without I/O (docs/receipts.md)."""
