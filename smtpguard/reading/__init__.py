"""Read the content of a message within bounds of time, size and depth. Pure; imports mail."""
