"""What a run leaves to look at: pictures, curves and a page."""
