"""Generated data: text with exact tags, and rooms with exact depth and labels."""
