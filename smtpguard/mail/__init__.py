"""Messages, envelopes, addresses and replies. Pure: no asyncio, no import of other rooms."""
