"""`fltrust ca ceremony`: on the machine without a network, with the root's key holders in the room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, print_rows, say

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from fltrust.ceremony.holders import Holder
    from fltrust.ceremony.room import Adopted, Room
    from fltrust.keys.signer import Signer

app = typer.Typer(help="The root's ceremony: offline, with a quorum of key holders.", no_args_is_help=True)

RoomFolder = Annotated[Path, typer.Argument(help="The room: a folder on the offline machine.")]
Holders = Annotated[
    list[Path],
    typer.Option("--holder", help="Folder of a holder who is present. Repeat for each.", show_default=False),
]
Passphrases = Annotated[
    list[Path] | None,
    typer.Option(
        "--passphrase-file",
        help="File (0600) with a holder's passphrase, in the order of --holder. Without it, each is asked.",
        show_default=False,
    ),
]
Cards = Annotated[
    list[Path],
    typer.Option("--card", help="A holder's card.json. Repeat for each.", show_default=False),
]
Threshold = Annotated[int, typer.Option(min=1, max=9, help="How many holders it takes.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether the words are right.")]


@app.command("holder")
def holder(
    folder: Annotated[Path, typer.Argument(help="A new folder of the holder's own, such as a USB stick's.")],
    name: Annotated[str, typer.Option(help="The holder's name.")],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="File (0600) with the holder's passphrase. Without it, the holder is asked."),
    ] = None,
) -> None:
    """Make a key holder's keys and card. Give the card to the others; keep everything else to yourself."""
    from fltrust.ceremony.holders import create_holder
    from fltrust.identity import Name

    card = create_holder(
        folder, Name(name), passphrase=_passphrase(passphrase_file, f"holder {name}", confirm=True)
    )
    say(f"Made the keys of {name} in {folder}. The card for the others: {folder / 'card.json'}")
    say(f"  key {_key_of(card.signing)}: read it to them, so that they know the card is yours")


@app.command("init")
def init(
    room: RoomFolder,
    trust_domain: Annotated[str, typer.Option(help="The name of the federation, e.g. hospitals.example.")],
    card: Cards,
    threshold: Threshold,
    holder: Holders,
    passphrase_file: Passphrases = None,
    adopt: Annotated[
        Path | None,
        typer.Option(
            help="A CA's folder whose root is taken in, instead of making one. Destroy its root.key after.",
            show_default=False,
        ),
    ] = None,
    root_passphrase_file: Annotated[
        Path | None,
        typer.Option(help="With --adopt: file with the passphrase of root.key.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The root's key, by URI, e.g. in an HSM (see 'fltrust keys').", show_default=False),
    ] = None,
    yes: Yes = False,
) -> None:
    """Make a root that any --threshold of the holders open together, and the first transcript."""
    from fltrust.ceremony.holders import HolderCard
    from fltrust.ceremony.room import Room
    from fltrust.ceremony.unlock import Roster
    from fltrust.clock import SystemClock
    from fltrust.identity import TrustDomain
    from fltrust.pki.bundle import root_fingerprint

    roster = Roster.of(map(HolderCard.read, card), threshold=threshold)
    lines = [f"{one.name}: key {_key_of(one.signing)}" for one in roster.cards]
    _agree([f"a root for {trust_domain}, opened by any {threshold} of", *lines], yes=yes)
    made = Room.create(
        room,
        TrustDomain(trust_domain),
        roster=roster,
        holders=_holders(holder, passphrase_file),
        clock=SystemClock(),
        adopt=None if adopt is None else _adopted(adopt, root_passphrase_file),
        root_signer=None if key is None else _signer(key),
    )
    say(f"Made the room {room} for {trust_domain}.")
    say(f"  root        {root_fingerprint(made.root)}")
    _tell_transcript(room, made)


@app.command("sign")
def sign(
    room: RoomFolder,
    request: Annotated[Path, typer.Argument(help="What 'fltrust ca request' wrote.")],
    answer: Annotated[Path, typer.Option(help="Where to write the answer.", show_default=False)],
    holder: Holders,
    passphrase_file: Passphrases = None,
    yes: Yes = False,
) -> None:
    """Read a request, have a quorum sign it, and let the root do what it asks."""
    from fltrust.ceremony.files import Request
    from fltrust.errors import Conflict
    from fltrust.files import write_durably

    if answer.exists():
        raise Conflict(f"expected nothing at {answer}, found a file", hint="choose another name")
    opened, asked = _open(room), Request.read(request)
    _agree([*asked.words(), f"digest         {asked.digest}"], yes=yes)
    made = opened.perform(asked, _holders(holder, passphrase_file))
    write_durably(answer, made.to_json(), mode=0o644)
    say(f"Signed. The answer: {answer}")
    _tell_transcript(room, opened)


@app.command("holders")
def holders(
    room: RoomFolder,
    card: Cards,
    threshold: Threshold,
    holder: Holders,
    passphrase_file: Passphrases = None,
    yes: Yes = False,
) -> None:
    """Give the root's key to other holders. A quorum of the present ones must be there."""
    from fltrust.ceremony.holders import HolderCard
    from fltrust.ceremony.unlock import Roster

    opened, roster = _open(room), Roster.of(map(HolderCard.read, card), threshold=threshold)
    lines = [f"{one.name}: key {_key_of(one.signing)}" for one in roster.cards]
    _agree([f"the root's key of {opened.domain} to any {threshold} of", *lines], yes=yes)
    opened.change_holders(roster, _holders(holder, passphrase_file))
    say("Sealed anew. Copies of the room from before still open with the former holders' keys.")
    _tell_transcript(room, opened)


@app.command("verify")
def verify(
    transcripts: Annotated[list[Path], typer.Argument(help="The transcripts, in order, or a room.")],
    root: Annotated[
        str | None,
        typer.Option(help="Fingerprint (sha256:…) that the first root must have.", show_default=False),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option(help="Digest (sha256:…) that the last transcript must have.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that transcripts hold together and were signed by a quorum each, and tell what was done."""
    from fltrust.ceremony.transcript import MAX_TRANSCRIPT, Transcript, verify_transcripts
    from fltrust.errors import Refused
    from fltrust.files import read_bounded
    from fltrust.identity import Digest

    paths = transcripts
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted((paths[0] / "transcripts").glob("[0-9]*.json"))
    told = verify_transcripts(
        (Transcript.from_json(read_bounded(path, limit=MAX_TRANSCRIPT)) for path in paths),
        first_root=None if root is None else Digest.parse(root),
    )
    if last is not None and told[-1].digest != Digest.parse(last):
        raise Refused(
            f"expected {last} as the last transcript, got {told[-1].digest}", reason="transcript-broken"
        )
    rows = [
        {
            "number": one.opening.sequence,
            "act": str(one.opening.act),
            "at": one.opening.at,
            "holders": ", ".join(one.holders),
            "root": str(one.closing.root),
            "digest": str(one.digest),
        }
        for one in told
    ]
    columns = {"number": "no", "act": "act", "at": "at", "holders": "holders", "digest": "transcript"}
    print_rows(rows, columns=columns, as_json=as_json, empty="no transcript")


@app.command("show")
def show(room: RoomFolder, as_json: AsJson = False) -> None:
    """Who holds the root's key, and which root it is."""
    from fltrust.pki.bundle import root_fingerprint

    opened = _open(room)
    print_json(
        {
            "domain": str(opened.domain),
            "root": str(root_fingerprint(opened.root)),
            "threshold": opened.roster.threshold,
            "holders": [str(card.name) for card in opened.roster.cards],
            "transcripts": len(opened.told()),
        },
        lines=not as_json,
    )


def _open(room: Path) -> Room:
    from fltrust.ceremony.room import Room
    from fltrust.clock import SystemClock

    return Room(room, clock=SystemClock())


def _holders(folders: list[Path], files: list[Path] | None) -> list[Holder]:
    from fltrust.ceremony.holders import HolderCard, open_holder
    from fltrust.errors import Malformed

    if files and len(files) != len(folders):
        raise Malformed(f"expected a passphrase file for each of {len(folders)} holders, got {len(files)}")
    found = []
    for number, folder in enumerate(folders):
        name = HolderCard.read(folder / "card.json").name
        passphrase = _passphrase(files[number] if files else None, f"holder {name}")
        found.append(open_holder(folder, passphrase=passphrase))
    return found


def _adopted(folder: Path, passphrase_file: Path | None) -> Adopted:
    from fltrust.ceremony.room import Adopted
    from fltrust.keys.stored import load
    from fltrust.pki.authority import CaFiles, load_bundle
    from fltrust.pki.root_revocation import load_root_crls

    root, crls = load_bundle(folder).roots[-1], load_root_crls(folder)
    signer = load(CaFiles(folder).root_key_of(root), passphrase=_passphrase(passphrase_file, "root key"))
    revoked = tuple(entry for crl in crls for entry in crl if crl.issuer == root.subject)
    return Adopted(root, signer, revoked)


def _signer(uri: str) -> Signer:
    from fltrust.keys.homes import open_key

    return open_key(uri)


def _agree(lines: list[str], *, yes: bool) -> None:
    for line in lines:
        say(f"  {line}")
    if not yes and not typer.confirm("Is that what you came for?", err=True):
        raise typer.Abort


def _tell_transcript(folder: Path, room: Room) -> None:
    last = room.told()[-1]
    path = folder / "transcripts" / f"{last.opening.sequence:04d}.json"
    say(f"  transcript  {path}, by {', '.join(last.holders)}")
    say(f"  note down   {last.digest}")


def _key_of(key: EllipticCurvePublicKey) -> str:
    from fltrust.identity import KeyId
    from fltrust.keys.openssh import spki_der

    return KeyId.of_spki(spki_der(key))


def _passphrase(path: Path | None, whose: str, *, confirm: bool = False) -> bytes:
    if path is not None:
        from fltrust.enrollment.private import read_passphrase

        return read_passphrase(path)
    asked = typer.prompt(f"Passphrase of {whose}", hide_input=True, confirmation_prompt=confirm, err=True)
    return str(asked).encode()
