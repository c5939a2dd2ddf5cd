"""What a run leaves to look at: pictures and curves."""
