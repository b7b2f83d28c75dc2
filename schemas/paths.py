"""The path of the API below the server's address."""

API_ROOT = "/api/v1"

API_PATH = f"{API_ROOT}/bulk-registrations"
CLOSED_PERIOD_PATH = f"{API_ROOT}/organization/closed-period"
ACTIVITIES_PATH = f"{API_ROOT}/activities"
RECEIPTS_PATH = f"{API_ROOT}/receipts"
WEBHOOKS_PATH = f"{API_ROOT}/webhooks"
WEBHOOK_CHANGES_PATH = f"{API_ROOT}/webhook-changes"
FORGETTINGS_PATH = f"{API_ROOT}/directory/forgettings"
