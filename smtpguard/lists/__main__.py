"""``python -m smtpguard.lists``: build the index of a long list for the process that reads its source. See writing."""

import sys

from smtpguard.lists.writing import serve

sys.exit(serve(sys.stdin.buffer, sys.stdout.buffer))
