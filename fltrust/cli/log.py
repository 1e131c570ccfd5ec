"""`fltrust log`: check, mirror, watch and witness a transparency log. Needs nothing of the coordinator's."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say, text_of
from fltrust.errors import Malformed

if TYPE_CHECKING:
    from fltrust.tlog.checkpoint import CheckpointPolicy
    from fltrust.tlog.mirror import Progress
    from fltrust.tlog.note import VerifierKey

app = typer.Typer(help="Check, mirror, watch and witness a transparency log.", no_args_is_help=True)

Place = Annotated[
    str, typer.Argument(metavar="URL|FOLDER", help="The log: its address, or a mirror's folder.")
]
Vkey = Annotated[
    list[str] | None,
    typer.Option(
        help="The log's key, '<name>+<id>+<base64>'. Again for each of its keys.", show_default=False
    ),
]
Trust = Annotated[
    Path | None,
    typer.Option(help="Trust file that names the log's key, in place of --vkey.", show_default=False),
]
WitnessKeys = Annotated[
    list[str] | None,
    typer.Option("--witness", help="Key of a witness that must have cosigned.", show_default=False),
]
Quorum = Annotated[
    int | None,
    typer.Option(help="How many of the witnesses must have cosigned. Default: all.", show_default=False),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca", help="CA certificates (PEM) for https, in place of the system's.", show_default=False
    ),
]


@app.command()
def verify(
    place: Place,
    vkey: Vkey = None,
    trust: Trust = None,
    witness: WitnessKeys = None,
    quorum: Quorum = None,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Check a whole log from its tiles alone: signatures, hashes, and every entry.

    Exit code 12 if a tile or entry does not hash to the signed root, 5 if a signature or entry is bad,
    13 if a cosignature is missing.
    """
    from fltrust.tlog.fetching import open_source
    from fltrust.tlog.mirror import verify_mirror

    policy = _policy(vkey, trust, witness, quorum)
    source = open_source(place, ca_file=ca)
    try:
        report = verify_mirror(source, policy, progress=_progress("entries"))
    finally:
        source.close()
    head, cosigned = report.checkpoint.head, report.checkpoint.cosigned
    if as_json:
        print_json(
            {
                "origin": report.checkpoint.origin,
                "size": head.size,
                "root": head.root.hex(),
                "kinds": report.kinds,
                "lastEpoch": None if report.last_epoch is None else int(report.last_epoch),
                "cosigned": dict(cosigned),
            }
        )
        return
    say(f"The log {report.checkpoint.origin} holds: {head.size} entries, root {head.root.hex()}.")
    for kind, count in report.kinds.items():
        say(f"  {count:>9} {kind}")
    for name, at in cosigned.items():
        say(f"  cosigned by {name} at {text_of(at)}")


@app.command()
def mirror(
    url: Annotated[str, typer.Argument(metavar="URL|FOLDER", help="The log's address.")],
    folder: Annotated[Path, typer.Argument(help="Where the mirror is, or is to be.")],
    vkey: Vkey = None,
    trust: Trust = None,
    witness: WitnessKeys = None,
    quorum: Quorum = None,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Download a log into a folder, or bring a mirror up to date; everything is checked before it is kept.

    A mirror is served as it is, by any web server. Exit code 12 if the log shows fewer entries than the
    mirror has, or another past; the mirror then stays as it was.
    """
    from fltrust.tlog.fetching import open_source
    from fltrust.tlog.mirror import download

    policy = _policy(vkey, trust, witness, quorum)
    source = open_source(url, ca_file=ca)
    try:
        checkpoint = download(source, folder.expanduser(), policy, progress=_progress("tiles"))
    finally:
        source.close()
    head = checkpoint.head
    if as_json:
        print_json({"origin": checkpoint.origin, "size": head.size, "root": head.root.hex()})
        return
    say(f"{folder} mirrors {checkpoint.origin} up to {head.size} entries, root {head.root.hex()}.")


@app.command()
def proof(
    place: Place,
    index: Annotated[int, typer.Argument(help="Number of the entry, as 'fltrust audit' shows it.", min=0)],
    vkey: Vkey = None,
    trust: Trust = None,
    witness: WitnessKeys = None,
    quorum: Quorum = None,
    ca: CaFile = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it. Default: <index>.tlog-proof", show_default=False)
    ] = None,
) -> None:
    """Write the proof that an entry is in the log, as one file (C2SP tlog-proof), and the entry beside it.

    Both are checked before they are written; whoever gets them needs nothing but the log's key.
    """
    from fltrust.files import write_durably
    from fltrust.tlog.fetching import open_source
    from fltrust.tlog.merkle import leaf_hash
    from fltrust.tlog.proof import SUFFIX, TlogProof

    policy = _policy(vkey, trust, witness, quorum)
    source = open_source(place, ca_file=ca)
    try:
        made, entry = TlogProof.of(index, fetch=source, policy=policy)
    finally:
        source.close()
    checkpoint = made.verify(leaf=leaf_hash(entry), policy=policy)
    file = out or Path(f"{index}{SUFFIX}")
    beside = file.with_name(file.name.removesuffix(SUFFIX) + ".entry")
    write_durably(beside, entry, mode=0o644)
    write_durably(file, made.encode(), mode=0o644)
    say(f"Wrote {file}: {beside.name} is entry {index} of {checkpoint.origin}, of {checkpoint.head.size}.")


@app.command()
def watch(
    place: Place,
    state: Annotated[Path, typer.Option(help="File that remembers what was seen.")],
    vkey: Vkey = None,
    trust: Trust = None,
    expect: Annotated[
        Path | None,
        typer.Option(help="Which certificates are expected (TOML). It is read anew for each look."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    interval: Annotated[str, typer.Option(help="Time between two looks, such as 5m.")] = "5m",
    hook: Annotated[
        str | None,
        typer.Option(help="Command to run for each alert, with the alert as JSON on its standard input."),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="File to write metrics to, in Prometheus' text format.")
    ] = None,
    witness: WitnessKeys = None,
    quorum: Quorum = None,
    ca: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Watch a log: is it consistent with what it showed before, and are its certificates expected ones?

    Each alert goes to standard error (with --json, as a line to standard output), to the hook and to the
    metrics. An alert whose hook fails is given again at the next look. Exit code 12 if the log forked,
    rewound or serves what it did not sign, at once; with --once, 15 if a certificate is not expected.
    """
    from fltrust.cli.times import parse_duration
    from fltrust.cli.watcher import Watcher

    pause = parse_duration(interval).total_seconds()
    watcher = Watcher(
        place,
        _policy(vkey, trust, witness, quorum),
        state=state.expanduser(),
        expect=expect,
        hook=hook,
        metrics=metrics,
        ca=ca,
        as_json=as_json,
    )
    while True:
        watcher.look(is_patient=not once)
        if once:
            return
        time.sleep(pause)


@app.command()
def witness(
    state: Annotated[Path, typer.Option(help="Private folder of the witness: its key, and what it saw.")],
    log: Annotated[
        list[str] | None,
        typer.Option(help="Key of a log to witness. Again for each key and log.", show_default=False),
    ] = None,
    trust: Trust = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the witness, e.g. witness.example/w1; needed once.", show_default=False),
    ] = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8008",
    as_json: AsJson = False,
) -> None:
    """Run a witness (C2SP tlog-witness): it cosigns checkpoints as long as each extends the one before.

    Run it elsewhere than the coordinator, under somebody else's hands. It speaks plain HTTP: put a TLS proxy
    in front where others can reach it. FLTRUST_PASSPHRASE_FILE names the file with its key's passphrase.
    """
    from fltrust.clock import SystemClock
    from fltrust.enrollment.private import passphrase_from_environment
    from fltrust.tlog.checkpoint import CheckpointPolicy
    from fltrust.tlog.witness import FolderStore, Witness
    from fltrust.tlog.witness_key import open_witness_key
    from fltrust.tlog.witness_server import WitnessServer, serve_until_stopped

    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise Malformed(f"expected --listen HOST:PORT, got {listen[:80]!r}")
    by_name: dict[str, list[VerifierKey]] = {}
    for key in _log_keys(log, trust):
        by_name.setdefault(key.name, []).append(key)
    folder = state.expanduser()
    store = FolderStore(folder)
    try:
        cosigner = open_witness_key(folder, name=name, passphrase=passphrase_from_environment())
        policies = tuple(CheckpointPolicy(tuple(keys)) for keys in by_name.values())
        server = WitnessServer(
            (host.strip("[]"), int(port)), Witness(cosigner, policies, store=store, clock=SystemClock())
        )
        vkey, address = str(cosigner.verifier), f"http://{host}:{server.server_port}"
        if as_json:
            print_json({"listen": address, "vkey": vkey, "logs": sorted(by_name)}, lines=True)
        else:
            say(f"Witness of {', '.join(sorted(by_name))} at {address}. Its key, for those who demand it:")
            say(f"  {vkey}")
        serve_until_stopped(server)
    finally:
        store.close()


def _policy(
    vkeys: list[str] | None, trust: Path | None, witnesses: list[str] | None, quorum: int | None
) -> CheckpointPolicy:
    from fltrust.tlog.checkpoint import CheckpointPolicy
    from fltrust.tlog.note import VerifierKey

    known = tuple(map(VerifierKey.parse, witnesses or ()))
    return CheckpointPolicy(_log_keys(vkeys, trust), known, len(known) if quorum is None else quorum)


def _log_keys(vkeys: list[str] | None, trust: Path | None) -> tuple[VerifierKey, ...]:
    from fltrust.tlog.note import VerifierKey

    keys = tuple(map(VerifierKey.parse, vkeys or ()))
    if trust is not None:
        from fltrust.artifacts.logkeys import log_keys_in

        keys += log_keys_in(trust)
    if not keys:
        raise Malformed(
            "expected the log's key, got none", hint="--vkey, or --trust with the federation's trust file"
        )
    return tuple(dict.fromkeys(keys))


def _progress(what: str) -> Progress:
    """A line on a terminal that is written over; silent elsewhere."""
    if not sys.stderr.isatty():
        return lambda _done, _all: None

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total} {what}" if done < total else "\r\033[K")

    return show
