"""What people are told by mail, and how: notices, DSNs, and sentences in Swedish."""
