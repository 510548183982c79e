"""The REST API, /api/v1: what the pages show and do, for chat bots, ticket systems and scripts."""
