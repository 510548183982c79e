"""One file a source of members."""
