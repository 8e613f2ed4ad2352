"""What makes data: a language with exact tags, and rooms with exact depth and labels."""
