"""What several plugins are made of, one idea a file."""
