"""What a message is. Pure: no asyncio, no other room of ours."""
