"""What is said to people, in their language: texts with their values, gettext catalogues, numbers and times."""
