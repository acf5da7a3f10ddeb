"""glm47-runner: serve GLM-4.7-NVFP4 with NVIDIA Dynamo and SGLang, the same way everywhere."""

__version__ = "0.1.0"
