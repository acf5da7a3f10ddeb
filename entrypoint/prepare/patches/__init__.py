"""Edits of the installed sglang without which GLM-4.7-NVFP4 does not run, or runs wrongly."""
