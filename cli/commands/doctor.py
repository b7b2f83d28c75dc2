"""`bulkreg doctor`: reports what is unsafe or unreachable, and how to fix it."""

import os
from dataclasses import asdict

import typer

from cli.servers.deployment import Deployment
from cli.terminal.command import Audience, command
from cli.terminal.failures import ExitCode
from cli.terminal.output import Output, printable
from cli.terminal.progress import working


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "doctor", audience=Audience.OPERATORS, example="bulkreg doctor")
    def doctor(deployment: Deployment, output: Output) -> ExitCode:
        """Check every setting and connection, and say how to fix problems. Exit code 3: something is unreachable; 1: something is unsafe."""
        # Imported here, so that the other commands do not wait for Kafka's client.
        from compose.doctor import examine
        from compose.findings import State

        settings = deployment.settings()
        with working(output, "Examining"):
            findings = list(examine(settings, os.environ))
        lines = []
        for finding in findings:
            lines.append(f"{finding.state:<12} {finding.subject}: {printable(finding.detail)}")
            if finding.fix is not None:
                lines.append(f"{'':<12} → {printable(finding.fix)}")
        output.answer({"findings": [asdict(finding) for finding in findings]}, *lines)
        states = {finding.state for finding in findings}
        if State.UNREACHABLE in states:
            return ExitCode.UNREACHABLE
        return ExitCode.SOME_FAILED if State.UNSAFE in states else ExitCode.DONE
