"""Write docs/reference/cli.md from the commands' own --help; with --check, fail where it is stale."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

for name in [name for name in os.environ if name.startswith("FLTRUST_")]:
    del os.environ[name]  # typer shows some of them as defaults
os.environ.update({"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"})

import click  # noqa: E402 - the width of the help is read when typer is imported
import typer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fltrust.cli.exits import MEANINGS  # noqa: E402
from fltrust.cli.main import app  # noqa: E402

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"


def render() -> str:
    parts = ["# The `fltrust` command\n", "Generated from `--help` by `make cli-docs`.\n"]
    parts.append("## Exit codes\n\n| code | meaning |\n|---|---|")
    parts[-1] += "".join(f"\n| {code} | {text} |" for code, text in MEANINGS.items()) + "\n"
    runner = CliRunner()
    for path in commands(typer.main.get_command(app), ()):
        result = runner.invoke(app, [*path, "--help"], color=False)
        if result.exit_code != 0:
            raise SystemExit(f"fltrust {' '.join(path)} --help failed: {result.output}")
        body = "\n".join(line.rstrip() for line in result.output.strip("\n").splitlines())
        parts.append(f"## `{' '.join(('fltrust', *path))}`\n\n```\n{body}\n```\n")
    return "\n".join(parts)


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            if not sub.hidden:
                yield from commands(sub, (*path, name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = render()
    if not parser.parse_args().check:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text(text)
        return 0
    if not TARGET.exists() or TARGET.read_text() != text:
        print(f"{TARGET.name} is stale; run: make cli-docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
