"""``python -m smtpguard`` is the command ``smtpguard``."""

from smtpguard.cli import main

if __name__ == "__main__":
    main()
