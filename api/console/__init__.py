"""The console's server side: login with an OpenID Connect provider, and the sessions of those who are logged in."""
