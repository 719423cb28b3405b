# sampler-bench on a CPU:
#   docker build -t sampler-bench .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" sampler-bench run --samplers all
# With a GPU: build with --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 and run with --gpus all.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
RUN python -m venv /opt/sampler-bench
ENV PATH=/opt/sampler-bench/bin:$PATH
# The two from one index: torchvision's operators load beside the torch that they were built with alone.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"
COPY pyproject.toml README.md LICENSE NOTICE /src/
COPY bench /src/bench
COPY samplers /src/samplers
COPY models /src/models
RUN pip install --no-cache-dir /src

FROM ${BASE}
COPY --from=build /opt/sampler-bench /opt/sampler-bench
# Whoever `--user` names may write in both: caches lie below the home, results below /work.
RUN useradd --uid 1000 --create-home bench && mkdir /work && chmod 1777 /home/bench /work
ENV PATH=/opt/sampler-bench/bin:$PATH HOME=/home/bench USER=bench
USER bench
WORKDIR /work
ENTRYPOINT ["sampler-bench"]
CMD ["--help"]
