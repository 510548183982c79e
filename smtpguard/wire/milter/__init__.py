"""The milter wire: an MTA hands us every message it takes, over the protocol of Sendmail's libmilter, version 6."""
