"""Who is asking: accounts and their passwords, signing in, sessions, and the doorway that every request comes through.

doorway (each request), signing (in and out), accounts (what becomes of them), passwords, factors, brakes, sessions, oidc,
pages.
"""
