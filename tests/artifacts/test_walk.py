"""What is bound of a model on disk, and what is refused with which reason."""

from __future__ import annotations

import os
import shutil
import socket
import unicodedata
from pathlib import Path

import pytest

from fltrust.artifacts import walk
from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.walk import Listing, collision_key, is_safe_name
from fltrust.errors import ArtifactRefused, LimitExceeded, NotFound


@pytest.fixture
def model(tmp_path: Path) -> Path:
    top = tmp_path / "model"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "config.json").write_bytes(b"{}")
    (top / "sub" / "deep" / "weights.bin").write_bytes(b"weights")
    return top


def _names(path: Path, **options: object) -> list[str]:
    with Listing(path, **options) as listing:  # type: ignore[arg-type]
        return [file.name for file in listing.files]


def _refusal(path: Path) -> str:
    with pytest.raises(ArtifactRefused) as caught:
        Listing(path).close()
    return caught.value.reason


def test_files_are_listed_by_their_path_below_the_top_in_the_order_of_its_parts(model: Path) -> None:
    (model / "sub-a").write_bytes(b"")
    (model / "sub" / "z").write_bytes(b"")

    assert _names(model) == ["config.json", "sub/deep/weights.bin", "sub/z", "sub-a"]


def test_a_model_of_one_file_has_a_single_entry_named_by_a_dot(model: Path) -> None:
    assert _names(model / "config.json") == ["."]


def test_hidden_files_and_two_names_of_one_file_are_files_like_any_other(model: Path) -> None:
    (model / ".hidden").write_bytes(b"")
    os.link(model / "config.json", model / "again.json")

    assert _names(model) == [".hidden", "again.json", "config.json", "sub/deep/weights.bin"]


def test_an_empty_directory_is_seen_and_one_that_only_holds_another_is_not_empty(model: Path) -> None:
    (model / "outer" / "inner").mkdir(parents=True)

    with Listing(model) as listing:
        assert listing.empty_directories == ["outer/inner"]


def test_sidecars_are_passed_over_at_the_top_alone(model: Path) -> None:
    for folder in (model, model / "sub"):
        (folder / "model.sig").write_bytes(b"{}")
        (folder / "model.lineage.jsonl").write_bytes(b"")

    assert _names(model) == [
        "config.json",
        "sub/deep/weights.bin",
        "sub/model.lineage.jsonl",
        "sub/model.sig",
    ]


def test_a_directory_in_a_sidecars_place_is_part_of_the_model(model: Path) -> None:
    (model / "model.sig").mkdir()
    (model / "model.sig" / "payload.py").write_bytes(b"")

    assert "model.sig/payload.py" in _names(model)


def test_what_the_caller_ignores_is_left_out_with_all_in_it(model: Path) -> None:
    assert _names(model, ignore=["sub/"]) == ["config.json"]
    assert _names(model, ignore=["deep"]) == ["config.json", "sub/deep/weights.bin"]


@pytest.mark.parametrize("target", ["config.json", "sub", "/etc/passwd", "nowhere"])
def test_a_symbolic_link_in_a_model_is_refused_wherever_it_points(model: Path, target: str) -> None:
    (model / "link").symlink_to(target)

    assert _refusal(model) == "symlink"


def test_a_link_to_the_model_itself_is_followed_once(model: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("model")
    (tmp_path / "file").symlink_to("model/config.json")

    assert _names(tmp_path / "current") == _names(model)
    assert _names(tmp_path / "file") == ["."]


def test_pipes_and_sockets_are_refused_without_waiting_for_them(model: Path) -> None:
    os.mkfifo(model / "pipe")
    assert _refusal(model) == "special-file"
    assert _refusal(model / "pipe") == "special-file"
    (model / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(model)  # the path of a socket is short
        server.bind("socket")
        assert _refusal(model) == "special-file"
        os.chdir("/")


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe.bin",
        b"new\nline",
        b"tab\t",
        b"back\\slash",
        b"\x7f",
        "right\u202eleft".encode(),
        b"\xc2\x9b",
    ],
)
def test_names_that_cannot_be_shown_without_doubt_are_refused(model: Path, name: bytes) -> None:
    (Path(os.fsdecode(os.fsencode(model) + b"/" + name))).write_bytes(b"")

    assert _refusal(model) == "name"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("README", "readme"),
        (unicodedata.normalize("NFC", "modèle"), unicodedata.normalize("NFD", "modèle")),
        ("straße", "STRASSE"),
    ],
)
def test_names_that_some_file_system_takes_for_one_are_refused(model: Path, first: str, second: str) -> None:
    (model / first).write_bytes(b"")
    (model / second).write_bytes(b"")

    assert _refusal(model) == "name-collision"
    assert collision_key(first) == collision_key(second)


def test_a_repository_inside_is_refused_unless_the_caller_ignores_it(model: Path) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "HEAD").write_bytes(b"")

    assert _refusal(model) == "git-directory"
    assert _names(model, ignore=[".git"]) == ["config.json", "sub/deep/weights.bin"]


def test_git_s_other_files_are_listed(model: Path) -> None:
    (model / ".gitattributes").write_bytes(b"")

    assert ".gitattributes" in _names(model)


def test_a_model_that_is_not_there_is_not_found(model: Path) -> None:
    with pytest.raises(NotFound):
        Listing(model / "nothing")
    with pytest.raises(NotFound):
        Listing(model / "config.json" / "below")


def test_directories_nested_too_deep_are_refused(tmp_path: Path) -> None:
    tmp_path.joinpath(*["d"] * 66).mkdir(parents=True)

    with pytest.raises(LimitExceeded):
        Listing(tmp_path)


def test_files_and_directories_are_counted_before_they_fill_the_memory(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MAX_FILES", 3)
    Listing(model).close()
    for name in ("a", "b"):
        (model / name).write_bytes(b"")

    with pytest.raises(LimitExceeded):
        Listing(model)


def test_no_directory_stays_open_after_a_refusal(model: Path) -> None:
    (model / "sub" / "link").symlink_to("deep")
    before = len(os.listdir("/proc/self/fd"))

    assert _refusal(model) == "symlink"

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_swapped_for_a_link_after_listing_is_not_followed(model: Path) -> None:
    with Listing(model) as listing:
        shutil.rmtree(model / "sub" / "deep")
        (model / "sub" / "deep").symlink_to("/etc")
        opener = listing.opener()
        with pytest.raises(ArtifactRefused) as caught:
            opener.open("sub/deep/weights.bin")
        opener.close()

    assert caught.value.reason == "changed-while-hashing"


def test_an_entry_that_appears_after_listing_is_noticed(model: Path) -> None:
    with Listing(model) as listing:
        listing.check_unchanged()
        (model / "sub" / "late").write_bytes(b"")
        with pytest.raises(ArtifactRefused) as caught:
            listing.check_unchanged()

    assert caught.value.reason == "changed-while-hashing"


def test_what_may_not_be_read_is_refused_as_unreadable(model: Path) -> None:
    for path in (model, *model.parents):
        if path.stat().st_uid == os.geteuid() and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o011)
    (model / "config.json").chmod(0)
    us = os.geteuid()
    try:
        if us == 0:  # who may read everything
            os.seteuid(65534)
        with pytest.raises(ArtifactRefused) as caught:
            build_manifest(model / "config.json")
    finally:
        os.seteuid(us)

    assert caught.value.reason == "unreadable"


UNSAFE = ["/etc/passwd", "../up", "a/../b", "a//b", "./a", "a/", "", ".", "a\\b", "\ud800"]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_are_told_apart(name: str) -> None:
    assert not is_safe_name(name)


@pytest.mark.parametrize("name", ["a", "a/b", "..a", "a..", " spaced name ", "modèle/ß", "-rf", "a:b"])
def test_odd_but_clear_names_are_safe(name: str) -> None:
    assert is_safe_name(name)
