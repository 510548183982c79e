"""The pages of the console: for each kind its routes and the data that it shows."""
