"""What every process needs: settings, logs, metrics, health, memory, and its connections to other servers."""
