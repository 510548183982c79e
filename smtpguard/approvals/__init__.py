"""What people make of holds: votes, withdrawal, questions and answers; and what time does."""
