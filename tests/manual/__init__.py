"""The manual that is made from code: reference pages of the docs, man pages, and what completes a command in a shell."""
