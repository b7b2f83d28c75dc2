"""Where the API is, below an address."""

API_PATH = "/api/v1/bulk-registrations"
