"""What is heard and spoken: SMTP in, SMTP out, DKIM. Never guard, store, or the policy's engine."""
