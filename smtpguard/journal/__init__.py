"""What can happen, the hash chain of what did and its proof, and what its entries say of one message."""
