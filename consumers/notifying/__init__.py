"""The notifier role: records which webhooks are told of which event, and delivers what is due (docs/webhooks.md)."""
