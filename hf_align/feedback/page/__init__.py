"""The page on which people compare responses."""
