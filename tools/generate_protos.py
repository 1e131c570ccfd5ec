"""Generate fltrust/wire/pb from protos/; with --check, fail where the committed code differs."""

from __future__ import annotations

import argparse
import filecmp
import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
TARGET = ROOT / "fltrust" / "wire" / "pb"
HEADER = '"""Generated from protos/ by tools/generate_protos.py; do not edit."""\n'


FOREIGN = ("envoy", "spiffe")
"""Others' protocols, under their own names: only their messages, each in a package of its own."""


def generate(target: Path) -> None:
    """Write `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` of ours flat into `target`, others' beside them."""
    with tempfile.TemporaryDirectory() as folder:
        wellknown = Path(grpc_tools.__file__).parent / "_proto"
        arguments = [
            "protoc",
            f"-I{PROTOS}",
            f"-I{wellknown}",
            f"--python_out={folder}",
            f"--pyi_out={folder}",
            f"--grpc_python_out={folder}",
            *sorted(str(p) for p in PROTOS.rglob("*.proto")),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        _take(Path(folder) / "fltrust" / "v1", target)
        for name in FOREIGN:
            _take(Path(folder) / name, target / name, without="_grpc.py")


def _take(made: Path, target: Path, *, without: str | None = None) -> None:
    target.mkdir(parents=True, exist_ok=True)
    (target / "__init__.py").write_text(HEADER)
    for source in sorted(made.iterdir()):
        if without is None or not source.name.endswith(without):
            text = re.sub(r"\bfrom fltrust\.v1 import", "from fltrust.wire.pb import", source.read_text())
            text = re.sub(rf"\bfrom ({'|'.join(FOREIGN)}) import", r"from fltrust.wire.pb.\1 import", text)
            (target / source.name).write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        generate(TARGET)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        names = sorted(_names(fresh) | _names(TARGET))
        stale = [n for n in names if not _same(fresh / n, TARGET / n)]
    if stale:
        print(f"stale generated code: {', '.join(stale)}; run: make protos", file=sys.stderr)
    return 1 if stale else 0


def _names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*.py*") if "__pycache__" not in path.parts
    }


def _same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and filecmp.cmp(a, b, shallow=False)


if __name__ == "__main__":
    raise SystemExit(main())
