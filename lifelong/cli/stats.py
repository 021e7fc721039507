"""What the weights already answer to, measured before they are written into."""
