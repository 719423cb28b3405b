"""The leaderboard: many results folders as one static page, each cell with its record and its command."""
