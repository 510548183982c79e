"""What is known of one transaction: its recipients, header, text, origin and sender, as facts that rules ask."""
