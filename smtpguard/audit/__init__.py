"""What can happen, and the proof that it did. Pure; imports mail."""
