"""What the rooms that act share: the policy in force, and what they need of the store, the wire and the clock."""
