"""The synthetic set: candies, rendered."""
