"""The leaderboard as one HTML page, with where each cell comes from and BibTeX."""
