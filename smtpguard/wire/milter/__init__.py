"""The milter: an MTA passes us every message that it accepts, over the protocol of Sendmail's libmilter, version 6."""
