"""Signing, verifying and loading models, beside model-signing and beside plain SHA-256.

All on one machine, in one run, the page cache warm; the fastest of some repetitions, ours and theirs
in turns. Ours sign at a desk in memory (certificate, timestamp, log entry) and verify everything again
before they write; model-signing's API signs with a bare key. Run it: ``python -m benchmarks artifacts``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fltrust.artifacts import sign, verify
from fltrust.artifacts.frameworks import Framework
from fltrust.artifacts.hashing import READ_BYTES, usable_cores
from fltrust.artifacts.loading import load_safetensors
from fltrust.artifacts.manifest import sidecar_paths
from fltrust.artifacts.measuring import SHARD_BYTES
from fltrust.artifacts.recipe import load_trust
from fltrust.testing.desk import ScratchDesk
from tools import strangers

GIB = 2**30
TENSORS = 64
SMALL_FILES, SMALL_BYTES = 2_000, 8 * 1024

_THEIRS = Path(__file__).with_name("oms_reference.py")
_TURNS = 3


class Models:
    """One model of 1 GiB as one file, as eight, and one of many small files."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "model.safetensors"
        _write_tensors(self.file, TENSORS, GIB // TENSORS)
        self.directory = folder / "eight"
        self.directory.mkdir()
        for place in range(8):
            _write_tensors(self.directory / f"{place}.safetensors", TENSORS // 8, GIB // TENSORS)
        self.small = folder / "small"
        for place in range(SMALL_FILES):
            path = self.small / f"{place // 100:02}" / f"{place:04}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(SMALL_BYTES))
        self.tiny = folder / "tiny.safetensors"
        _write_tensors(self.tiny, 4, 4096)


class Signer:
    """Signs and verifies as a user would, at a desk in memory."""

    def __init__(self) -> None:
        self.desk = ScratchDesk()
        self.trust = load_trust(self.desk.trust_file())
        self.identity = str(self.desk.caller)

    def sign(self, path: Path, **how: Any) -> None:
        sign(path, desk=self.desk, trust=self.trust, **how)

    def verify(self, path: Path) -> None:
        verify(path, trust=self.trust, identity=self.identity)

    def load(self, path: Path, framework: Framework) -> object:
        return load_safetensors(path, trust=self.trust, identity=self.identity, framework=framework)


def measure() -> dict[str, float]:
    """Seconds, and the ratios made from them."""
    with tempfile.TemporaryDirectory(prefix="fltrust-bench-") as folder:
        models, us = Models(Path(folder)), Signer()
        found: dict[str, float] = {"cores": float(usable_cores())}
        _beside_theirs(models, us, found, Path(folder))
        _beside_hash_then_load(models, us, found)
        found["verify_small_model_process_s"] = _verify_process(models.tiny, us, Path(folder))
    return {name: round(value, 4) for name, value in (found | _ratios(found)).items()}


def _ratios(found: dict[str, float]) -> dict[str, float]:
    limit = found["sharded_limit_s"]
    return {
        "sign_shards_speedup": found["theirs_sign_s"] / found["sign_shards_s"],
        "sign_default_speedup": found["theirs_sign_s"] / found["sign_s"],
        "verify_speedup": found["theirs_verify_s"] / found["verify_s"],
        "verify_shards_speedup": found["theirs_verify_s"] / found["verify_shards_s"],
        "sign_shards_of_limit": limit / found["sign_shards_s"],
        "verify_of_limit": limit / found["verify_s"],
        "load_ratio": found["load_torch_s"] / found["hash_then_load_s"],
    }


def _beside_theirs(models: Models, us: Signer, found: dict[str, float], folder: Path) -> None:
    fast = {"with_tensors": False, "shard_bytes": SHARD_BYTES}
    for _ in range(_TURNS):
        _keep(found, _theirs([models.file, models.directory, models.small], folder))
        _keep(found, {"sharded_limit_s": _time(lambda: _hash_sharded(models.file))})
        _keep(found, {"sign_shards_s": _time(lambda: us.sign(models.file, **fast))})
        _keep(found, {"verify_shards_s": _time(lambda: us.verify(models.file))})
        _keep(found, {"sign_s": _time(lambda: us.sign(models.file))})
        _keep(found, {"verify_s": _time(lambda: us.verify(models.file))})
        _keep(found, {"sign_eight_files_s": _time(lambda: us.sign(models.directory))})
        _keep(found, {"sign_eight_files_no_tensors_s": _time(lambda: us.sign(models.directory, **fast))})
        _keep(found, {"verify_eight_files_s": _time(lambda: us.verify(models.directory))})
        _keep(found, {"sign_small_files_s": _time(lambda: us.sign(models.small))})
        _keep(found, {"verify_small_files_s": _time(lambda: us.verify(models.small))})


def _beside_hash_then_load(models: Models, us: Signer, found: dict[str, float]) -> None:
    from safetensors.torch import load_file

    def hash_then_load() -> object:
        with models.file.open("rb") as file:
            state = sha256()
            while chunk := file.read(READ_BYTES):
                state.update(chunk)
        return state.digest(), load_file(models.file)

    us.sign(models.file)
    for _ in range(_TURNS + 1):  # the first one imports torch
        _keep(found, {"hash_then_load_s": _time(hash_then_load)})
        _keep(found, {"load_torch_s": _time(lambda: us.load(models.file, "torch"))})
        _keep(found, {"load_numpy_s": _time(lambda: us.load(models.file, "numpy"))})


def _verify_process(path: Path, us: Signer, folder: Path) -> float:
    us.sign(path)
    trust = folder / "trust.json"
    trust.write_bytes(us.desk.trust_file())
    command = [str(Path(sys.executable).with_name("fltrust")), "verify", str(path), "--trust", str(trust)]
    command += ["--identity", us.identity]
    return min(_time(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(7))


def _theirs(paths: list[Path], folder: Path) -> dict[str, float]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for path in paths:
        sidecar_paths(path).signature.unlink(missing_ok=True)  # to them it is a file of the model
    command = [strangers.environment(strangers.ORACLE), _THEIRS, private, public, "2", *paths]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    names = zip(paths, ("", "_eight_files", "_small_files"), strict=True)
    return {
        f"theirs_{act}{name}_s": seconds for path, name in names for act, seconds in found[str(path)].items()
    }


def _hash_sharded(path: Path) -> None:
    """Nothing but SHA-256 of as many equal parts as there are cores: what signing cannot beat."""
    size, cores = path.stat().st_size, usable_cores()

    def work(part: int) -> bytes:
        begin, end = size * part // cores, size * (part + 1) // cores
        buffer, state = memoryview(bytearray(READ_BYTES)), sha256()
        fd = os.open(path, os.O_RDONLY)
        while begin < end:
            count = os.preadv(fd, [buffer[: end - begin]], begin)
            state.update(buffer[:count])
            begin += count
        os.close(fd)
        return state.digest()

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(work, range(cores)))


def _write_tensors(path: Path, count: int, size: int) -> None:
    """A safetensors file of `count` random tensors of `size` bytes each."""
    header = {
        f"layer.{i}": {"dtype": "F32", "shape": [size // 4], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(count)
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count):
            file.write(os.urandom(size))


def _keep(found: dict[str, float], seconds: dict[str, float]) -> None:
    for name, value in seconds.items():
        found[name] = min(found.get(name, float("inf")), value)


def _time(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
