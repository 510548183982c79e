"""Stand still: freezes, thaws, and the watch over the gate that every final dot is asked at."""
