"""The command line on the deployment of a test, in the test's own process."""

from typer.testing import CliRunner, Result

from cli.main import app
from orchestrator.process.settings import Settings


def bulkreg(settings: Settings, *arguments: str, **others: str | None) -> Result:
    """Runs a command as a deployment does, with `others` in its environment, too."""
    environment = {
        "BULKREG_DATABASE_URL": settings.database_url.get_secret_value(),
        "BULKREG_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "BULKREG_TOPIC_PREFIX": settings.topic_prefix,
        "BULKREG_HOME": None,
    }
    return CliRunner().invoke(app, arguments, env=environment | others)
