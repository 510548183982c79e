"""What a message says, within bounds of time, size and depth. Pure; imports mail."""
