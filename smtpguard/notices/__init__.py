"""Mail to people: who gets which notice, and the text of notices and DSNs."""
