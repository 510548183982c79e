"""What lasts. Never guard or wire."""
