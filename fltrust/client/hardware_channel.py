"""gRPC channels whose client key stays in an HSM or TPM: the one module that knows gRPC's experimental call.

`grpc.experimental.ssl_channel_credentials_with_custom_signer` may move or change between minor versions of
grpcio. Where it does, a key in hardware is refused by name, and keys in files go on as ever.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import grpc

from fltrust.errors import FltrustError, Unavailable
from fltrust.keys.signer import Signer

_CALL = "ssl_channel_credentials_with_custom_signer"
_ALGORITHM = "PrivateKeySignatureAlgorithm"


def channel_credentials(*, roots_pem: bytes, chain_pem: bytes, signer: Signer) -> grpc.ChannelCredentials:
    """Credentials for a channel that shows `chain_pem` and has `signer` sign each handshake.

    Only ECDSA over P-256 with SHA-256 is signed, so the peer must take that: ours do. `Unavailable`
    (``grpc-custom-signer``) where this grpcio does not have the call, or not as we know it.
    """
    make, ecdsa = _experimental()

    def sign(data: bytes, algorithm: object, _on_complete: object) -> bytes:
        if algorithm != ecdsa:
            raise ValueError(f"expected to sign by ECDSA over P-256 with SHA-256, was asked for {algorithm}")
        try:
            return signer.sign(data)
        except FltrustError as error:
            # gRPC makes a failed handshake of it; nothing of ours crosses its C core.
            raise ValueError(f"the key did not sign: {error.reason}") from None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental is why this module exists
        try:
            credentials: grpc.ChannelCredentials = make(
                private_key_sign_fn=sign, root_certificates=roots_pem, certificate_chain=chain_pem
            )
        except TypeError:
            raise _moved() from None
    return credentials


def _experimental() -> tuple[Callable[..., Any], object]:
    try:
        from grpc import experimental
    except ImportError:
        raise _moved() from None
    make = getattr(experimental, _CALL, None)
    ecdsa = getattr(getattr(experimental, _ALGORITHM, None), "ECDSA_SECP256R1_SHA256", None)
    if make is None or ecdsa is None:
        raise _moved()
    return make, ecdsa


def _moved() -> Unavailable:
    return Unavailable(
        f"expected grpc.experimental.{_CALL} in grpcio {grpc.__version__}, it is not there as we know it",
        reason="grpc-custom-signer",
        hint="a client key in an HSM or TPM needs it: install the grpcio that fltrust was tried with (1.85), "
        "or use a key in a file",
    )
