"""A witness's own key: made once, in its folder, beside the name that goes with it."""

from __future__ import annotations

from pathlib import Path

from fltrust.errors import Malformed
from fltrust.files import read_bounded, write_durably
from fltrust.keys.ed25519 import generate_note_key, load_note_key, save_note_key
from fltrust.tlog.checkpoint import CosignerKey
from fltrust.tlog.note import VerifierKey, check_name

_KEY, _VKEY = "witness.key", "witness.vkey"
_MAX_VKEY = 2048


def open_witness_key(folder: Path, *, name: str | None, passphrase: bytes | None) -> CosignerKey:
    """The key in `folder`, or a fresh one under `name`; ``witness.vkey`` beside it is its public half.

    A key has one name for good: another `name` is refused (`Malformed`), as is none for a fresh key.
    """
    key_path, vkey_path = folder / _KEY, folder / _VKEY
    if not key_path.exists():
        if name is None:
            raise Malformed(
                f"expected --name for the new witness in {folder}, got none",
                hint="a schema-less URL that tells it from others, such as witness.example/w1",
            )
        signer = generate_note_key()
        cosigner = CosignerKey(check_name(name), signer)
        # The name first: a key is never there without it, whatever happens in between.
        write_durably(vkey_path, f"{cosigner.verifier}\n".encode(), mode=0o644)
        save_note_key(signer, key_path, passphrase=passphrase)
        return cosigner
    signer = load_note_key(key_path, passphrase=passphrase)
    public = VerifierKey.parse(read_bounded(vkey_path, limit=_MAX_VKEY).decode("utf-8", "replace").strip())
    if name is not None and name != public.name:
        raise Malformed(f"expected the witness in {folder} to be {public.name}, got --name {name[:80]!r}")
    cosigner = CosignerKey(public.name, signer)
    if cosigner.verifier != public:
        raise Malformed(f"expected {_VKEY} in {folder} to be of the key beside it, found another's")
    return cosigner
