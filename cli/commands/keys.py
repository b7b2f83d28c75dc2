"""`bulkreg keys`: makes the keys that sign receipts, and lists those that did."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.servers.deployment import Deployment
from cli.terminal.command import Audience, command
from cli.terminal.output import Output, table

if TYPE_CHECKING:
    from orchestrator.receipts.keys import SigningKey

# The commands import what they need themselves, so that shell completion and --help do not wait for database drivers and cryptography.

_SETTING = "BULKREG_RECEIPTS_SIGNING_KEY"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    keys = typer.Typer(no_args_is_help=True, help="The keys that sign receipts.")
    app.add_typer(keys, name="keys", rich_help_panel=Audience.OPERATORS)

    @command(keys, "create", example="bulkreg keys create --name bulkreg.example.org")
    def create(
        output: Output,
        name: Annotated[
            str | None, typer.Option(help="The deployment's name in receipts. Default: BULKREG_RECEIPTS_ORIGIN.")
        ] = None,
    ) -> None:
        """Make a key. Prints the private key, which is stored nowhere, and the public one. Needs no server."""
        key = _new_key(name)
        output.answer(_document(key), *_lines(key))
        output.remark(f"Give the private key to the notary as {_SETTING}, and keep a copy where you keep secrets.")

    @command(keys, "rotate", example="bulkreg keys rotate")
    def rotate(deployment: Deployment, output: Output) -> None:
        """Make the next key, and list its public half before it signs anything. The present key stays listed for old receipts."""
        from cli.servers.database import database
        from orchestrator.storage.receipt_checkpoints import add_key

        settings = deployment.settings()
        key = _new_key(settings.receipts_origin)
        with database(settings, settings.worker_url) as engine, engine.begin() as connection:
            add_key(connection, str(key.verifier))
        output.answer(_document(key), *_lines(key))
        output.remark(f"Publish the public key, then restart the notary with the private key as {_SETTING}.")

    @command(keys, "add", example="bulkreg keys add 'records.example.org+cdeb7a7c+AQOhB7…'")
    def add(
        deployment: Deployment, output: Output, key: Annotated[str, typer.Argument(metavar="KEY", help="The public key.")]
    ) -> None:
        """List a public key that signed and is missing here, after a restore. The notary then reads all published checkpoints again."""
        from cli.servers.database import database
        from cli.terminal.failures import BadInputError
        from orchestrator.receipts.keys import BadKeyError, VerifierKey
        from orchestrator.storage.receipt_checkpoints import add_key

        try:
            verifier = VerifierKey.parse(key)
        except BadKeyError as error:
            raise BadInputError(f"This is no public key: {error}.") from error
        settings = deployment.settings()
        with database(settings, settings.worker_url) as engine, engine.begin() as connection:
            is_new = add_key(connection, str(verifier))
        sentence = f"The key {verifier} is listed." if is_new else f"The key {verifier} was listed already."
        output.answer({"key": str(verifier), "fingerprint": verifier.fingerprint, "is_new": is_new}, sentence, done=sentence)

    @command(keys, "list", example="bulkreg keys list")
    def show(deployment: Deployment, output: Output) -> None:
        """Show all public keys that sign receipts, or did, the newest first."""
        from cli.servers.database import database
        from orchestrator.receipts.keys import VerifierKey
        from orchestrator.storage.receipt_checkpoints import known_keys

        settings = deployment.settings()
        with database(settings, settings.worker_url) as engine, engine.begin() as connection:
            known = [VerifierKey.parse(text) for text in known_keys(connection)]
        rows = [(str(key), key.fingerprint) for key in known]
        document = {"keys": [{"key": text, "fingerprint": fingerprint} for text, fingerprint in rows]}
        output.answer(document, table(["key", "fingerprint"], rows) if rows else "No key has signed anything yet.")


def _new_key(name: str | None) -> "SigningKey":
    from cli.servers.settings import load_settings
    from cli.terminal.failures import BadInputError
    from orchestrator.receipts.keys import BadKeyError, SigningKey

    try:
        return SigningKey.generate(load_settings().receipts_origin if name is None else name)
    except BadKeyError as error:
        raise BadInputError(f"--name: {error}.") from error


def _document(key: "SigningKey") -> dict[str, Any]:
    return {"private_key": key.secret_text(), "key": str(key.verifier), "fingerprint": key.verifier.fingerprint}


def _lines(key: "SigningKey") -> tuple[str, ...]:
    return (
        f"private key: {key.secret_text()}",
        f"public key: {key.verifier}",
        f"fingerprint: {key.verifier.fingerprint}",
    )
