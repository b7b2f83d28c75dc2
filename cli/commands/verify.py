"""`bulkreg verify`: checks the invariants on a live system."""

from collections import Counter
from dataclasses import asdict

import typer

from cli.servers.deployment import Deployment
from cli.terminal.command import Audience, command
from cli.terminal.failures import ExitCode
from cli.terminal.output import Output, printable, table
from cli.terminal.progress import working


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "verify", audience=Audience.OPERATORS, example="bulkreg verify --json | jq .breaches")
    def verify_all(deployment: Deployment, output: Output) -> ExitCode:
        """Check the invariants of all records, counts and statuses. Exit code 1 if one is breached; changes no record."""
        # Imported here, so that shell completion and --help do not wait for the database driver.
        from cli.servers.database import database
        from orchestrator.verification.verify import keep_result, verify

        settings = deployment.settings()
        with working(output, "Verifying"), database(settings, settings.worker_url) as engine:
            report = verify(engine, settings)
            is_kept = keep_result(engine, report)
        looked_at = ", ".join(f"{number} {what}" for what, number in report.checked.items())
        rows = [[str(b.invariant), b.batch_id or "", b.item_id or "", printable(b.detail)] for b in report.breaches]
        by_invariant = ", ".join(
            f"{n} of invariant {i}" for i, n in sorted(Counter(b.invariant for b in report.breaches).items())
        )
        human = [table(["invariant", "batch", "item", "what is wrong"], rows)] if rows else []
        verdict = f"Breaches: {by_invariant}." if rows else "All invariants hold."
        document = {"breaches": [asdict(breach) for breach in report.breaches], "checked": report.checked}
        output.answer(document, *human, f"{looked_at} checked. {verdict}")
        if not is_kept:
            output.remark("The result was not stored for the metrics, because the database is read-only.")
        return ExitCode.SOME_FAILED if report.breaches else ExitCode.DONE
