"""What a node uploads is what it announced: the objects behind a reply, checked one by one.

An object is a head, a zero byte and a body. The head names its type, its children and the body's length;
the object's id is the SHA-256 of it all, which Flower checks. Whoever pulls the reply builds it from these
heads, and takes who sent it from the body of the message among them: so both must be what was announced.
"""

from __future__ import annotations

from typing import Any

from flwr.proto.message_pb2 import Message as ProtoMessage
from google.protobuf.message import DecodeError

from fltrust.errors import Malformed, Oversized, Refusal
from fltrust.flower import _private
from fltrust.flower.fleet_ledger import Announcement

MAX_OBJECT_HEAD = 8 * 1024 * 1024
MAX_MESSAGE_OBJECT = 1024 * 1024
_BODY, _VALUE = _private.object_dividers()
_MESSAGE = b"Message"


def claimed_metadata(message: Any) -> bytes:
    """Give what a message says of itself, in the form in which it stands in its own object."""
    claimed = ProtoMessage(
        metadata=message.metadata, error=message.error if message.HasField("error") else None
    )
    claimed.metadata.message_id = ""  # an object cannot contain its own digest
    return claimed.SerializeToString(deterministic=True)


def check_object(object_id: str, content: bytes, reply: Announcement) -> None:
    """Return if `content` may be the object `object_id` of the announced reply, else raise.

    1. The object is in the announced tree.
    2. Its head names exactly the children announced for it.
    3. The root, and nothing else, is a message.
    4. The message says of itself what was announced: who sent it, to whom, in answer to what.
    """
    children = reply.children.get(object_id)
    if children is None:  # 1
        raise Malformed("expected an object of the announced tree, got another", reason=Refusal.STRUCTURE)
    end = content.find(_BODY, 0, MAX_OBJECT_HEAD)
    if end < 0:
        raise Malformed("expected an object with a head and a body", reason=Refusal.STRUCTURE)
    parts = content[:end].split(_VALUE)
    if len(parts) != 3 or parts[1] != ",".join(children).encode("ascii"):  # 2
        raise Malformed("expected the children that were announced for this object", reason=Refusal.STRUCTURE)
    if (parts[0] == _MESSAGE) != (object_id == reply.message_id):  # 3
        raise Malformed(
            "expected a message at the root of the tree and nowhere else", reason=Refusal.STRUCTURE
        )
    if object_id == reply.message_id:  # 4
        if len(content) > MAX_MESSAGE_OBJECT + end:
            raise Oversized(f"expected a message object of at most {MAX_MESSAGE_OBJECT} bytes, got more")
        try:
            message = ProtoMessage.FromString(content[end + len(_BODY) :])
        except DecodeError:
            raise Malformed("expected a message in the root object", reason=Refusal.STRUCTURE) from None
        if claimed_metadata(message) != reply.metadata:
            raise Malformed(
                f"the uploaded message says that node {message.metadata.src_node_id} sent it, "
                "and not what was announced",
                reason=Refusal.WRONG_NODE,
            )
