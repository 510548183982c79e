"""The process tree of ``smtpguard serve``: one supervisor and its parts.

The supervisor owns the listeners, accepts, counts connections and hands each to the least loaded proxy; the parts do the
work and beat.
"""
