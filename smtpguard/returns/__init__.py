"""Mail that comes back after a mailing: bounces, complaints, replies and unsubscribes."""
