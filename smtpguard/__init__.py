"""smtpguard: an interlock for mail on its way to many people. The house and its rooms are drawn in docs/flow.md."""

__version__ = "1.0.0rc1"
