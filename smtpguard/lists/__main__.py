"""``python -m smtpguard.lists``: builds the index of a long list for the process that reads it. See buildworker."""

import sys

from smtpguard.lists.buildworker import serve

sys.exit(serve(sys.stdin.buffer, sys.stdout.buffer))
