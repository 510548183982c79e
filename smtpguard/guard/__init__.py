"""The policy in force, the policies that were, and what the services need of the store, the wire and the clock."""
