"""What the migration left behind, sent to the running 0.8: lost values, points, batches."""
