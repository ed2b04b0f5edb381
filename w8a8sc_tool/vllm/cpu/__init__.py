"""The quantization method `w8a8sc` for vLLM's CPU platform: to check directories with a whole engine, not for speed."""
