"""PURE. What another policy would have made of what was decided, from the journal alone: what is certain, and what may be. Never
asyncio, never an effect."""
