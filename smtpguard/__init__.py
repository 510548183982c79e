"""smtpguard: an interlock for mail on its way to many people. The house and its rooms are drawn in docs/flow.md."""

__version__ = "0.1.0"
