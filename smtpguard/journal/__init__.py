"""The journal: its kinds of events, the hash chain and its proof, and the state of a message that its entries add up
to.
"""
