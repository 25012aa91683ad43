"""The leaderboard and other tables as text: Markdown, LaTeX, CSV, the terminal."""
