"""DER around what is encoded already, for the tags that a declared structure cannot have."""

from __future__ import annotations


def tagged(number: int, content: bytes) -> bytes:
    """DER under a context tag below 31, constructed."""
    return _tlv(0xA0 | number, content)


def der_sequence(content: bytes) -> bytes:
    """DER of a SEQUENCE of what is encoded already."""
    return _tlv(0x30, content)


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content
