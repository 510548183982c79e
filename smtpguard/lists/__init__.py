"""Who is on which customer list. Imports mail and config."""
