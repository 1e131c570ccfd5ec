"""Enrollment protocols of others as they are on the wire: messages in, messages out, nothing decided.

One package a protocol. What a message asks for is decided by the registration authority, and who may ask by
the coordinator: this room reads and writes ACME, EST, CMP and SCEP, and refuses what their RFCs do.
"""
