"""Accounts, passwords, sign-in and sessions of the console, and the middleware that every request passes."""
