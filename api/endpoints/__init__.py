"""What each route does: one function per endpoint, and how the domain looks as JSON."""
