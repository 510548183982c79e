"""The REST API, /api/v1: what the pages show and do, for chat bots, ticket systems and scripts.

tokens (who asks), problems (what an error is), rate and doors in entry, routes (what is where), models, heldmessage and
incidentreport (what is sent), openapi (all of it described).
"""
