"""Handing over only what verifies: copies for CI and servers, and OCI layouts through a real registry."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from mlflow_world import Trained, trained

from fltrust import artifacts
from fltrust.artifacts.recipe import VerifiedModel
from fltrust.errors import (
    Conflict,
    EvidenceMissing,
    FltrustError,
    Malformed,
    NotFound,
    Oversized,
    Tampered,
    UntrustedSigner,
)
from fltrust.registry.gate import Verify, fetch_verified, from_files
from fltrust.registry.oci import BUNDLE_TYPE, pack, unpack


@pytest.fixture(scope="module")
def made() -> Iterator[Trained]:
    with trained() as made:
        yield made


@pytest.fixture
def check(made: Trained) -> Verify:
    trust = made.trust_file()

    def check(path: Path) -> VerifiedModel:
        found: VerifiedModel = artifacts.verify(
            path, trust=trust, identity=f"spiffe://{made.domain}/signer/release"
        )
        return found

    return check


@pytest.fixture(params=["directory", "file"])
def model(request: pytest.FixtureRequest, made: Trained, tmp_path: Path) -> Path:
    path = tmp_path / "source" / ("digits" if request.param == "directory" else "digits.dat")
    path.parent.mkdir()
    if request.param == "directory":
        (path / "parts").mkdir(parents=True)
        (path / "empty").mkdir()
        (path / "parts" / "a.dat").write_bytes(b"a" * 5000)
        (path / "config.json").write_text("{}")
    else:
        path.write_bytes(b"b" * 5000)
    made.sign(path)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_verified_copy_is_handed_over_whole(model: Path, check: Verify, tmp_path: Path) -> None:
    target = fetch_verified(from_files(model), tmp_path / "out" / "model", check=check)
    assert target == tmp_path / "out" / "model"
    check(target)
    assert sorted(tree(tmp_path / "out").values()) == sorted(tree(model.parent).values())


def test_an_empty_mount_is_filled(model: Path, check: Verify, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    check(fetch_verified(from_files(model), mount, check=check))
    assert not [p for p in mount.iterdir() if p.name.startswith(".")]


def spoil(model: Path) -> None:
    (model / "parts" / "a.dat" if model.is_dir() else model).write_bytes(b"c" * 5000)


def unsign(model: Path) -> None:
    (model / "model.sig" if model.is_dir() else model.with_name("digits.dat.sig")).unlink()


@pytest.mark.parametrize(("harm", "error"), [(spoil, Tampered), (unsign, EvidenceMissing)])
def test_of_what_is_refused_nothing_is_left(
    harm: Callable[[Path], None], error: type[FltrustError], model: Path, check: Verify, tmp_path: Path
) -> None:
    harm(model)
    with pytest.raises(error):
        fetch_verified(from_files(model), tmp_path / "out" / "model", check=check)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_changes_at_the_source_after_it_was_read_does_not_matter(
    model: Path, check: Verify, tmp_path: Path
) -> None:
    def check_then_spoil(path: Path) -> VerifiedModel:
        found = check(path)
        spoil(model)
        return found

    check(fetch_verified(from_files(model), tmp_path / "out", check=check_then_spoil))


def test_a_target_that_holds_something_is_left_alone(model: Path, check: Verify, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("x")
    with pytest.raises(Conflict):
        fetch_verified(from_files(model), tmp_path / "out", check=check)
    assert tree(tmp_path / "out") == {"old": b"x"}


def test_links_are_not_followed_and_sizes_are_bounded(model: Path, check: Verify, tmp_path: Path) -> None:
    with pytest.raises(Oversized):
        fetch_verified(from_files(model, limit=4999), tmp_path / "out", check=check)
    if model.is_dir():
        (model / "link").symlink_to("/etc/hostname")
        with pytest.raises(FltrustError, match="symbolic link"):
            fetch_verified(from_files(model), tmp_path / "out", check=check)
    assert not (tmp_path / "out").exists()


def test_a_layout_gives_back_what_was_packed(model: Path, check: Verify, tmp_path: Path) -> None:
    packed = pack(model, tmp_path / "layout", tag="1")
    index = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    assert {item["digest"] for item in index["manifests"]} >= {packed.model}
    referrer = json.loads((tmp_path / "layout" / "blobs" / "sha256" / packed.signature[7:]).read_bytes())
    assert referrer["artifactType"] == BUNDLE_TYPE
    assert referrer["subject"]["digest"] == packed.model
    if model.is_dir():
        (model / "empty").rmdir()  # OCI knows files alone, so what was signed with it does not verify
        with pytest.raises(Tampered):
            fetch_verified(unpack(tmp_path / "layout", tag="1"), tmp_path / "out", check=check)
    else:
        check(fetch_verified(unpack(tmp_path / "layout", tag="1"), tmp_path / "out", check=check))


def test_a_layout_is_not_made_of_an_unsigned_model(model: Path, tmp_path: Path) -> None:
    unsign(model)
    with pytest.raises(EvidenceMissing):
        pack(model, tmp_path / "layout", tag="1")
    assert not (tmp_path / "layout").exists()


@pytest.fixture
def layout(made: Trained, tmp_path: Path) -> Path:
    model = tmp_path / "digits"
    (model / "parts").mkdir(parents=True)
    (model / "parts" / "a.dat").write_bytes(b"a" * 5000)
    made.sign(model)
    pack(model, tmp_path / "layout", tag="1")
    return tmp_path / "layout"


def edit(layout: Path, change: Callable[[dict[str, Any]], None], *, digest: str) -> None:
    """Change a manifest, and every digest above it, as somebody who holds the registry can."""
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / digest[7:]).read_bytes())
    change(manifest)
    data = json.dumps(manifest).encode()
    new = sha256(data).hexdigest()
    (blobs / new).write_bytes(data)
    index = json.loads((layout / "index.json").read_bytes())
    for item in index["manifests"]:
        if item["digest"] == digest:
            item["digest"] = f"sha256:{new}"
    (layout / "index.json").write_text(json.dumps(index))


def names(layout: Path) -> dict[str, str]:
    index = json.loads((layout / "index.json").read_bytes())
    return {
        item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"]
        for item in index["manifests"]
    }


def test_a_name_that_climbs_out_of_a_layout_is_refused(layout: Path, check: Verify, tmp_path: Path) -> None:
    def climb(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["annotations"]["org.opencontainers.image.title"] = "../../escaped"

    edit(layout, climb, digest=names(layout)["1"])
    with pytest.raises(Malformed, match="safe file name"):
        fetch_verified(unpack(layout, tag="1"), tmp_path / "out", check=check)
    assert not (tmp_path / "escaped").exists()


def test_another_blob_under_a_digest_is_refused(layout: Path, check: Verify, tmp_path: Path) -> None:
    blob = next(p for p in (layout / "blobs" / "sha256").iterdir() if p.read_bytes() == b"a" * 5000)
    blob.write_bytes(b"b" * 5000)
    with pytest.raises(Tampered):
        fetch_verified(unpack(layout, tag="1"), tmp_path / "out", check=check)


def edit_model(layout: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the model's manifest, and have its signature refer to the changed one."""

    def put(value: object) -> str:
        data = json.dumps(value).encode()
        digest = sha256(data).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(data)
        return f"sha256:{digest}"

    def get(item: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((layout / "blobs" / "sha256" / item["digest"][7:]).read_bytes())
        return found

    edit(layout, change, digest=names(layout)["1"])
    index = json.loads((layout / "index.json").read_bytes())
    subject, item = index["manifests"]
    referrers = get(item)
    referrer = get(referrers["manifests"][0])
    referrer["subject"]["digest"] = subject["digest"]
    referrers["manifests"][0]["digest"] = put(referrer)
    item["digest"] = put(referrers)
    item["annotations"]["org.opencontainers.image.ref.name"] = subject["digest"].replace(":", "-")
    (layout / "index.json").write_text(json.dumps(index))


def accept(_path: Path) -> VerifiedModel:
    """As if whoever made the layout could sign."""
    return None  # type: ignore[return-value]


def test_one_blob_under_many_names_does_not_fill_the_disk(layout: Path, tmp_path: Path) -> None:
    def multiply(manifest: dict[str, Any]) -> None:
        layer = manifest["layers"][0]
        manifest["layers"] = [
            {**layer, "annotations": {"org.opencontainers.image.title": f"{n}.dat"}} for n in range(100)
        ]

    edit_model(layout, multiply)
    with pytest.raises(Oversized):
        fetch_verified(unpack(layout, tag="1", limit=100_000), tmp_path / "out", check=accept)
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("title", ["evil/digits.dat", "digits.dat"])
def test_a_single_file_of_a_layout_has_no_folder(title: str, layout: Path, tmp_path: Path) -> None:
    """Else its folder would be put beside the target."""

    def nest(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["annotations"]["org.opencontainers.image.title"] = title
        manifest["annotations"] = {"fltrust.single-file": "true"}

    edit_model(layout, nest)
    copy = unpack(layout, tag="1")
    if title == "digits.dat":
        assert fetch_verified(copy, tmp_path / "out", check=accept).read_bytes() == b"a" * 5000
        return
    with pytest.raises(Malformed):
        fetch_verified(copy, tmp_path / "out", check=accept)
    assert list(tmp_path.glob("out*")) == []


def test_a_signature_that_is_a_link_is_not_packed(made: Trained, tmp_path: Path) -> None:
    """A layout is pushed to a registry: nothing of the packer's own files gets into it."""
    model, secret = tmp_path / "digits.dat", tmp_path / "secret"
    model.write_bytes(b"b" * 5000)
    secret.write_text("the packer's own")
    (tmp_path / "digits.dat.sig").symlink_to(secret)
    with pytest.raises(Malformed):
        pack(model, tmp_path / "layout", tag="1")
    (tmp_path / "digits.dat.sig").unlink()
    os.mkfifo(tmp_path / "digits.dat.sig")
    with pytest.raises(Malformed):
        pack(model, tmp_path / "layout", tag="1")
    assert not (tmp_path / "layout").exists()


def test_a_layout_without_the_tag_or_the_signature_is_refused(
    layout: Path, check: Verify, tmp_path: Path
) -> None:
    with pytest.raises(NotFound):
        fetch_verified(unpack(layout, tag="2"), tmp_path / "out", check=check)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"] = index["manifests"][:1]
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(EvidenceMissing):
        fetch_verified(unpack(layout, tag="1"), tmp_path / "out", check=check)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"manifests": [1]}', b'{"manifests": 3}', b"\xff"])
def test_a_layout_that_is_none_is_refused(text: bytes, check: Verify, layout: Path, tmp_path: Path) -> None:
    (layout / "index.json").write_bytes(text)
    with pytest.raises((Malformed, NotFound)):
        fetch_verified(unpack(layout, tag="1"), tmp_path / "out", check=check)


def test_a_stock_tool_pushes_model_and_signature_to_a_stock_registry(
    layout: Path, check: Verify, made: Trained, tmp_path: Path
) -> None:
    for program in ("skopeo", "docker-registry"):
        if shutil.which(program) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"CI must not skip: {program} is not on this machine")
            pytest.skip(f"{program} is not on this machine")
    with registry(tmp_path) as host:
        for tag in names(layout):
            copy("--dest-tls-verify=false", f"oci:{layout}:{tag}", f"docker://{host}/models/digits:{tag}")
        for tag in names(layout):
            copy(
                "--src-tls-verify=false",
                f"docker://{host}/models/digits:{tag}",
                f"oci:{tmp_path / 'back'}:{tag}",
            )
    assert names(tmp_path / "back")["1"] == names(layout)["1"], "what a deployment pins is what was packed"
    target = fetch_verified(unpack(tmp_path / "back", tag="1"), tmp_path / "out", check=check)
    assert check(target).signer == f"spiffe://{made.domain}/signer/release"
    with pytest.raises(UntrustedSigner):
        artifacts.verify(target, trust=made.trust_file(), identity=f"spiffe://{made.domain}/signer/other")


def copy(*arguments: str) -> None:
    done = subprocess.run(["skopeo", "copy", "--all", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Debian's docker-registry on a port of its own; its host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    settings, storage = folder / "registry.yml", folder / "stored"
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", settings], stdout=log, stderr=log)
        try:
            _wait_until_up(f"http://{host}/v2/", folder / "registry.log")
            yield host
        finally:
            process.terminate()
            process.wait(10)


def _wait_until_up(url: str, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
