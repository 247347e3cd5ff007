"""What bad files, kills and neighbours may do, and what they may not (docs/trust.md)."""
