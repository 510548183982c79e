"""Log, metrics, alarms and webhooks, made from the journal, and how far each reader of it was told."""
