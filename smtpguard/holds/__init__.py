"""What waits for people: until when, and what a decision on it covers and means."""
