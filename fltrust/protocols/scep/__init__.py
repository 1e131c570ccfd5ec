"""SCEP (RFC 8894) with AES and SHA-256 alone: messages in, messages out."""
