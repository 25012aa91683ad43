"""The tidy frame summed up: a row a method of each board, with tiers, gaps, budgets and the view across boards."""
