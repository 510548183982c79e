"""What we send ourselves: releases, notices and DSNs, recipient by recipient."""
