# TagSpeech for NVIDIA GPUs. The wheel of torch brings CUDA along; the host needs NVIDIA's driver and
# its container toolkit. In the root of the repository:
#
#   docker build --file utils/docker/cuda.Dockerfile --tag tagspeech:cuda .
#   docker run --rm --gpus all --volume "$PWD:/data" tagspeech:cuda transcribe --model /data/MODEL /data/meeting.wav
#
# The compiler, and what pip leaves behind, stay in the first stage.
FROM python:3.12-slim-bookworm AS build

# meeteval and spy-der are distributed as source.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tagspeech
ENV PATH=/opt/tagspeech/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source

# The largest layers first: they change least.
COPY requirements.txt requirements-gpu.txt requirements-serve.txt ./
RUN pip install --no-deps --requirement requirements-gpu.txt
# A layer of its own: torch changes less often.
# hadolint ignore=DL3059
RUN pip install --requirement requirements.txt --requirement requirements-serve.txt
COPY pyproject.toml LICENSE LICENSES.md ./
COPY tagspeech tagspeech
RUN pip install --no-deps --no-build-isolation .

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 1000 tagspeech \
 && install --directory --owner tagspeech /data
COPY --from=build /opt/tagspeech /opt/tagspeech
ENV PATH=/opt/tagspeech/bin:$PATH HF_HOME=/data/.huggingface TAGSPEECH_CACHE=/data/.tagspeech
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["tagspeech"]
CMD ["--help"]
