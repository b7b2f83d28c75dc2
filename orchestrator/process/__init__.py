"""What every process needs whatever it does: settings, logs, metrics, health, memory, and the way out to other servers."""
