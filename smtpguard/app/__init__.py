"""Builds and connects the objects of all other rooms. Only this room and cli may import every room."""
