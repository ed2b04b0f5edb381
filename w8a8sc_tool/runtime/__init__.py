"""What consumes a directory: the 310P's operations on an NPU and on any CPU, and a decoder on top of them.

Everything in this room may import torch; elsewhere only the plugin for vLLM and msmodelslim's helper process do.
"""
