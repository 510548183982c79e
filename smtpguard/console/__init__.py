"""The web console for approvers: pages rendered on the server, for phones and for use by keyboard alone."""
