"""The same thing to many people: what people see of it and do to it, its copies, and taking it back."""
