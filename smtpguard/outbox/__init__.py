"""The outbox: releases, notices and DSNs, recipient by recipient."""
