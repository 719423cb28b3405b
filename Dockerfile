# sampler-bench on a CPU:  docker build -t sampler-bench . && docker run --rm -v "$PWD:/work" sampler-bench run --samplers all
# With a GPU: build with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 and run with --gpus all.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch --index-url "$TORCH_INDEX"

COPY . /src
RUN pip install --no-cache-dir /src && rm -r /src

# Results are written below the folder that is mounted here.
WORKDIR /work
ENTRYPOINT ["sampler-bench"]
