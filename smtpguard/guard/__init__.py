"""The effects. Never aiosmtpd, SQL, sockets, YAML or HTTP; never store and wire."""
