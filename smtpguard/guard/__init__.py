"""The policy in force, earlier policies, and the protocols of what services need from the store, the wire and the
clock."""
