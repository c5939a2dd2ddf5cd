"""Check annotations, masks and image files; repair what has one meaning."""
