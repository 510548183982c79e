"""Log, metrics, alarms and webhooks: what operations see of what is journalled, and who was told of it."""
