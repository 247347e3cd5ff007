"""What the pages share: families, widgets, jobs, runs, caches and ways to show a result."""
