"""The web console, where people decide: pages rendered on the server, for a phone and for the keyboard alone.

app (what is where), desk (what the pages work with), pages/ (one file a kind of page), screen (from values to a page),
speech (in the reader's language), people/ (who is asking).
"""
