"""ACME (RFC 8555), with renewal information (RFC 9773): requests in, objects and problems out."""
