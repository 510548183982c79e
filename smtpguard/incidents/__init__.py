"""What an incident is asked about, and the report: who sent what to whom, what became of it, and who decided."""
