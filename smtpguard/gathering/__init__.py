"""The facts of one transaction that rules ask: recipients, header, text, origin and sender."""
