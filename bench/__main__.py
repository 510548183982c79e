"""``python -m bench``: smtpguard beside Postfix and beside nothing at all, interleaved, medians and ratios."""

from bench.through import main

main()
