"""Texts for people in their language: messages with values, gettext catalogues, numbers and times."""
