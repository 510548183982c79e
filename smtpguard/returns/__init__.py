"""What comes back after a mailing: bounces, complaints, replies and unsubscribes, and the breakers that they trip."""
