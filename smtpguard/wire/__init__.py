"""SMTP in, SMTP out, the milter protocol, DKIM. Imports neither the store nor the policy's engine."""
