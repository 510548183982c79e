"""``python -m bench``: compare smtpguard with Postfix and with no hop at all, interleaved; print medians and ratios.

``python -m bench --mailings``: which copies count as one mailing.
``python -m bench --flood``: one mailing as thousands of transactions with one recipient each.
``python -m bench --counted``: the store alone, counting the recipients of messages to 50 customers each.
``python -m bench --lists``: customer lists of millions of people.
``python -m bench --console``: pages over 20,000 held messages.
``python -m bench --journal``: reading the whole journal, alone and beside mail.
``python -m bench --month``: an ordinary month of a company; what is held wrongly, and which dangerous mail passes.
``python -m bench --milter``: the cost of a message inside Postfix with smtpguard, with an idle milter and with none.
``python -m bench --rest``: memory of an idle guard, process by process, and the processor time of a start.
``python -m bench --house``: the size of the code, and the calls that a plain message takes.
"""

import sys
from importlib import import_module

WHICH = ("mailings", "flood", "counted", "lists", "console", "journal", "month", "milter", "rest", "house")

asked = sys.argv[1].removeprefix("--") if len(sys.argv) > 1 else ""
if asked in WHICH:
    import_module(f"bench.{asked}").main(sys.argv[2:])
else:
    if asked in ("help", "-h"):
        print(__doc__)
    import_module("bench.through").main(sys.argv[1:])
