"""The shapes of data that the stages hand on: frames, segments, and sequence arithmetic."""
