"""`fltrust`: the entry point, its command groups, and the one place that turns errors into exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated

import typer

from fltrust import __version__
from fltrust.cli.exits import INTERRUPTED, OK, UNEXPECTED, USAGE, exit_code_of
from fltrust.cli.output import say, shown
from fltrust.errors import FltrustError

_EXTRAS = {
    "alembic": "coordinator",
    "boto3": "aws",
    "botocore": "aws",
    "flwr": "flower",
    "grpc_health": "coordinator",
    "grpc_reflection": "coordinator",
    "httpx": "flower",
    "pkcs11": "pkcs11",
    "psycopg": "postgres",
    "sigstore": "sigstore",
    "sqlalchemy": "coordinator",
    "starlette": "coordinator",
    "tpm2_pytss": "tpm",
    "uvicorn": "coordinator",
}
"""What the base install leaves out, and the extra that brings it."""

DEBUG_VARIABLE = "FLTRUST_DEBUG"

_MODULES: Mapping[str, str | None] = {
    "coordinator": "coordinator",
    "tokens": "token",
    "acme": "acme",
    "cmp": "cmp",
    "keys": "keys",
    "log": "log",
    "site": None,
    "renew": None,
    "revocation": None,
    "blast": None,
    "audit": None,
    "sign": None,
    "second": "second",
    "verify": None,
    "fetch": None,
    "participants": "participants",
    "federation": "federation",
    "requests": "requests",
    "asking": None,
    "bulk": "bulk",
    "operations": "operations",
    "rounds": "rounds",
    "lineage": "lineage",
    "trust": "trust",
    "ocsp": "ocsp",
    "ca": "ca",
}
"""Modules of this room, in the order of the help, and the group that each is; None: it registers commands."""

_ALONE = {"verify": "verify", "fetch-verified": "fetch"} | {
    group: module for module, group in _MODULES.items() if group is not None
}
"""Commands and groups, and their module, that load no other: registries and CI jobs run some of them for
every model."""


def build_app(command: str | None = None, *, is_outline: bool = False) -> typer.Typer:
    """Put the commands together: all of them, or one that is run without the others.

    An outline has commands and groups by name alone, without what they take: enough for the help of the
    whole, which most of the time would go into otherwise.
    """
    app = typer.Typer(
        name="fltrust",
        help="Trust for Flower federations: short-lived certificates, signed updates, mid-round revocation.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(root)
    for name in (_ALONE[command],) if command in _ALONE else _MODULES:
        module = import_module(f"fltrust.cli.{name}")
        group = _MODULES[name]
        if group is None:
            module.register(app)
        else:
            app.add_typer(_outlined(module.app) if is_outline else module.app, name=group)
    if is_outline:
        for info in app.registered_commands:
            info.callback = _named_as(info.callback)
    return app


def _named_as(command: Callable[..., object] | None) -> Callable[[], None]:
    """A command of the same name and words that takes nothing."""

    def outline() -> None: ...

    outline.__name__, outline.__doc__ = getattr(command, "__name__", ""), getattr(command, "__doc__", None)
    return outline


def _outlined(group: typer.Typer) -> typer.Typer:
    """A group that says what it is for."""
    outline = typer.Typer(help=group.info.help)
    outline.callback()(lambda: None)
    return outline


def __getattr__(name: str) -> typer.Typer:
    if name == "app":
        return build_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fltrust {__version__}")
        raise typer.Exit


def root(
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, help="Say more; twice for debug.", show_default=False),
    ] = 0,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    _log_to_stderr({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)  # Flower's own logger lets everything through
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    if level > logging.DEBUG:
        for chatty in ("alembic", "flwr", "uvicorn"):
            logging.getLogger(chatty).propagate = False


def main() -> None:
    """Run the command; exit as `docs/reference/cli.md` says."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command with `arguments` (default: the process's own) and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in given if not word.startswith("-")), None)
    try:
        code = build_app(command, is_outline=command is None)(args=given, standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except FltrustError as error:
        _explain(error)
        return exit_code_of(error)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        say(f"error [missing-extra]: this command needs the package {error.name}, which is not installed")
        say(f"  pip install 'fltrust[{extra}]'")
        return USAGE
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's own usage errors
            error.show()
            return int(error.exit_code)
        if os.environ.get(DEBUG_VARIABLE):
            raise
        say(f"error: unexpected {type(error).__name__}; this is a fault of fltrust's")
        say(f"  set {DEBUG_VARIABLE}=1 for the traceback, and please report it")
        return UNEXPECTED
    return code if isinstance(code, int) else OK


def _explain(error: FltrustError) -> None:
    say(f"error [{error.reason}]: {shown(error.message)}")
    if error.hint:
        say(f"  {error.hint}")


if __name__ == "__main__":
    main()
