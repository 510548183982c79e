"""What waits for people: votes, quorum, deadlines, what a decision covers and means, and how it is taken back."""
