"""The pure proof of the journal."""
