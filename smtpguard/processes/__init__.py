"""The process tree of ``smtpguard serve``: one supervisor and its parts.

The supervisor owns the listeners, accepts and counts connections, and hands each to the least loaded proxy. The parts
do the work and send heartbeats.
"""
