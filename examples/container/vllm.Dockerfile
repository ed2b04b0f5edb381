# vLLM Ascend's image with this tool and its plugin for vLLM (docs/vllm.md). In the repository:
#
#   docker build -f examples/container/vllm.Dockerfile -t vllm-w8a8sc .
#
# `w8a8sc serve DIR --container --plugin-in-image` prints the line that starts it; put the image's name into it. Take the
# image of the release that the directory was made for.
FROM quay.io/ascend/vllm-ascend:v0.23.0-310p

COPY . /src

# Without dependencies: vLLM brings all of them, and its numpy and torch must stay.
RUN python3 -m pip install --no-cache-dir --no-deps /src \
    && rm -rf /src \
    && w8a8sc compile
