"""The manual generated from code: reference pages of the docs, man pages, and shell completion."""
