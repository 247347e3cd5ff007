"""The pages: controls → a frozen recipe → a job in the worker → figures."""
