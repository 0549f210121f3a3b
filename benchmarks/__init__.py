"""Speed of each stage, side by side with a plain statement of the same thing."""
