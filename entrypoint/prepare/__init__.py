"""What is corrected before anything starts: the model's view, sglang's source, FlashInfer's files."""
