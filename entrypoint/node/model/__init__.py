"""What the model directory holds, and what is wrong with it. Reads only."""
