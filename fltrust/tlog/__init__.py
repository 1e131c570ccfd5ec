"""The transparency log: a Merkle tree of entries (RFC 6962) in tiles, with signed checkpoints (C2SP)."""
