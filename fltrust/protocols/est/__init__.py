"""EST (RFC 7030, clarified by RFC 8951): bodies in, bodies out."""
