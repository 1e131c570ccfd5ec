"""What strangers wrote reaches a terminal as text alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fltrust.cli import output
from fltrust.cli.output import print_rows, say, shown, text_of
from fltrust.identity import TrustDomain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://x/\x1b]0;title\x07\x1b[2J", r"https://x/\x1b]0;title\x07\x1b[2J"),
        ("one\nVerified model", r"one\nVerified model"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("\x9b31m", r"\x9b31m"),
        ("safe\u202efdp.exe", r"safe\u202efdp.exe"),
        ("half\ud800", r"half\ud800"),
        ("Universitätsklinikum\tA – ✓", "Universitätsklinikum\tA – ✓"),
    ],
)
def test_controls_are_shown_and_not_obeyed(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_what_is_said_keeps_its_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    say("first\n  second\x1b[31m")
    assert capsys.readouterr().err == "first\n  second\\x1b[31m\n"


def test_a_cell_of_a_table_is_no_command() -> None:
    assert text_of("site\x1b[8m") == r"site\x1b[8m"
    assert text_of("spiffe://hospitals.example/participant/site-a") == "participant/site-a"


def test_a_guest_is_shown_by_its_whole_name_and_not_taken_for_one_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "_spoken_of", None)
    output.speak_of(TrustDomain("hospitals.example"))
    assert text_of("spiffe://hospitals.example/participant/site-a") == "participant/site-a"
    assert (
        text_of("spiffe://clinic.example/participant/site-a") == "spiffe://clinic.example/participant/site-a"
    )


@pytest.mark.parametrize("name", ["[/]", "[link=https://x.example]model[/link]", "[conceal]model", ":smile:"])
def test_a_cell_of_a_table_is_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": name}], columns={"name": "NAME"}, as_json=False, empty="")
    assert name in capsys.readouterr().out


_AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def test_one_row_too_wide_for_the_terminal_is_printed_as_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = {"name": "spiffe://hospitals.example/participant/site-a", "at": _AT, "state": "/srv/" + "x" * 80}
    print_rows([row], columns={"name": "IDENTITY", "at": "SINCE", "state": "STATE"}, as_json=False, empty="")
    assert capsys.readouterr().out.splitlines() == [
        "IDENTITY  participant/site-a",
        f"SINCE     {text_of(_AT)}",
        f"STATE     {row['state']}",
    ]


@pytest.mark.parametrize(("columns", "is_word_whole", "is_time_whole"), [(80, 1, 1), (60, 1, 0), (40, 0, 0)])
def test_in_a_narrow_table_digests_fold_before_times_and_times_before_words(
    columns: int,
    is_word_whole: int,
    is_time_whole: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [{"name": "site-a", "serial": "5e" * 20, "at": _AT, "by": "operator/admin"} for _ in range(2)]
    headings = {"name": "WHO", "serial": "CERTIFICATE", "at": "AT", "by": "BY"}
    print_rows(rows, columns=headings, as_json=False, empty="")
    said = capsys.readouterr().out
    assert ("operator/admin" in said, text_of(_AT) in said) == (bool(is_word_whole), bool(is_time_whole))
    assert max(map(len, said.splitlines())) <= columns
    assert said.count("site-a") == 2
