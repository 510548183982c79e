"""What people are told by mail, and how: who is told what, notices, DSNs, and sentences in Swedish."""
