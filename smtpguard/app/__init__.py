"""Introduces everyone: the only room that knows all the others, and the only one that builds across them.

What stands on disk: files, certificates. What is in force: policies, lists, synced, freshness. What ``serve`` runs: start (once,
before the parts), parts, proxy, milter, delivery, console, hooks. What the command line works with: services, explaining, probe,
ways.
"""
